"""Training: its regularisation, refits with frozen zeros, and distillation."""

from torchlasso.training.augmentation import RandomCrop, RandomFlip
from torchlasso.training.distillation import Distillation
from torchlasso.training.input_dropout import InputDropout
from torchlasso.training.plan import Plan
from torchlasso.training.refit import freeze_zeros
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.trainer import Trainer

__all__ = [
    "Distillation",
    "InputDropout",
    "Plan",
    "RandomCrop",
    "RandomFlip",
    "Regularisation",
    "Trainer",
    "freeze_zeros",
]
