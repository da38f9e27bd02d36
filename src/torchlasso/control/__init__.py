"""Controllers of λ: they write ``lam`` as schedulers write ``lr``."""

from torchlasso.control.hold import Hold
from torchlasso.control.misses import TargetMissed
from torchlasso.control.reweighted import Reweighted
from torchlasso.control.schedules import Warmup
from torchlasso.control.target_budget import TargetBudget
from torchlasso.control.target_count import TargetCount
from torchlasso.control.target_l0 import TargetL0
from torchlasso.control.target_sparsity import TargetSparsity
from torchlasso.optim.controller import LambdaController

__all__ = [
    "Hold",
    "LambdaController",
    "Reweighted",
    "TargetBudget",
    "TargetCount",
    "TargetL0",
    "TargetMissed",
    "TargetSparsity",
    "Warmup",
]
