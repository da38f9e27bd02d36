"""The plan of a training: its length and order, and how a step is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torchlasso._core.arguments import is_number
from torchlasso._core.specs import unknown
from torchlasso.training.schedules import SCHEDULES

FLOAT32, BF16 = PRECISIONS = ("float32", "bf16")


@dataclass(frozen=True)
class Plan:
    """The length and the order of training, and how a step is computed.

    Attributes:
        epochs: passes over the training rows.
        batch_size: rows per step, over all processes; the last batch of an epoch may be smaller.
        seed: the seed of the order of rows and of the model's random numbers; both are seeded anew for every epoch.
        schedule: the schedule of the learning rate per step, a name in ``SCHEDULES``.
        warmup: the share of steps over which the rate rises from 0.
        decay: the share of steps over which it falls at the end, in the schedule ``wsd``.
        precision: of the forward and backward pass, a name in ``PRECISIONS``; weights and steps are in float32.
        clip: the largest norm of the gradient of a step, of all parameters together; a longer one is scaled to it.
        parts: the number of parts in which the rows of a step are computed one after the other, to save memory.
        save_every: the number of steps of an epoch after which a state can be kept; random numbers are seeded anew
            there, so that a resume has the same. None: at the ends of epochs only.
    """

    epochs: int
    batch_size: int = 128
    seed: int = 0
    schedule: str = "cosine"
    warmup: float = 0.0
    decay: float = 0.25
    precision: str = FLOAT32
    clip: float | None = None
    parts: int = 1
    save_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "parts", "save_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be from 0 to 2^63 − 1; got {self.seed}")
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.clip is not None and not (is_number(self.clip) and 0 < self.clip < math.inf):
            raise ValueError(f"clip must be a number above 0; got {self.clip!r}")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for name in ("warmup", "decay"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < 1:
                raise ValueError(f"{name} must be a share of the steps, at least 0 and below 1; got {value!r}")
