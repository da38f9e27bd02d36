"""Distillation: a model learns from another one's outputs as well as from the targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Distillation:
    """A loss term that pulls the outputs towards the outputs of a teacher, such as the dense model.

    For classes it is strength · T² · KL(softmax(teacher/T) ‖ softmax(outputs/T)), for regression strength times the
    mean squared difference. Hinton, Vinyals and Dean 2015.

    Args:
        outputs: the teacher's outputs, one row for each training row.
        classes: whether the outputs are logits of classes.
        strength: the weight of the term; the loss on the targets has the weight 1.
        temperature: T > 0; the higher, the more the unlikely classes count.

    Raises:
        ValueError: strength or temperature is not above 0, or an output is infinite or NaN.

    Examples:
        >>> term = Distillation(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), classes=True)
        >>> unsure, wrong = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])  # of the first row
        >>> [round(term(outputs, torch.tensor([0])).item(), 3) for outputs in (unsure, wrong)]
        [0.105, 1.848]
    """

    outputs: Tensor
    classes: bool
    strength: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        for name in ("strength", "temperature"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} of the distillation must be a finite number above 0; got {getattr(self, name)!r}"
                )
        if not bool(self.outputs.isfinite().all()):
            raise ValueError("an output of the teacher is infinite or NaN")

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Compute the term for the outputs (n, …) of the training rows ``rows``, (n,)."""
        wanted = self.outputs[rows]
        if not self.classes:
            return self.strength * nn.functional.mse_loss(outputs, wanted)
        own, teacher = (torch.log_softmax(logits / self.temperature, dim=1) for logits in (outputs, wanted))
        divergence = nn.functional.kl_div(own, teacher, log_target=True, reduction="batchmean")
        return self.strength * self.temperature**2 * divergence
