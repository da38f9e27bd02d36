"""The standard error of a validation figure."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torchlasso.training.evaluation import Evaluation, evaluate_outputs, outputs_of
from torchlasso.training.losses import Loss
from torchlasso.training.rows import InputRows

CHUNKS = 20  # parts of the rows, whose spread gives the standard error of the mean loss


@torch.no_grad()
def standard_error(model: nn.Module, loss: Loss, found: Evaluation, x: InputRows, y: Tensor) -> float:
    """Return the standard error of the error of a model, which is binomial, or of its mean loss.

    Args:
        model: the evaluated model.
        loss: (outputs, targets) ↦ mean loss.
        found: its figures on the rows.
        x, y: the rows.
    """
    if found.error is not None:
        # smoothed: zero errors in a few rows do not mean an error of zero
        share = (found.error * len(y) + 1) / (len(y) + 2)
        return math.sqrt(share * (1 - share) / len(y))
    outputs = outputs_of(model, x)
    chunks = zip(outputs.chunk(CHUNKS), y.chunk(CHUNKS), strict=True)
    losses = torch.tensor([evaluate_outputs(some, loss, wanted).loss for some, wanted in chunks])
    spread = float(losses.std()) if len(losses) > 1 else 0.0
    return spread / math.sqrt(len(losses))
