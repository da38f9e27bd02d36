"""Training on tensors in memory, refits with frozen zeros, and distillation."""

from torchlasso.training.distillation import Distillation
from torchlasso.training.refit import freeze_zeros
from torchlasso.training.trainer import Plan, Trainer

__all__ = ["Distillation", "Plan", "Trainer", "freeze_zeros"]
