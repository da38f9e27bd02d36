"""The standard error of a validation figure."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from torchlasso.training.evaluation import Evaluation, evaluate_outputs, outputs_of
from torchlasso.training.losses import Loss
from torchlasso.training.rows import InputRows
from torchlasso.training.survival import cox, weighted_cox

CHUNKS = 20  # parts of the rows, whose spread gives the standard error of the mean loss


@torch.no_grad()
def standard_error(model: nn.Module, loss: Loss, found: Evaluation, x: InputRows, y: Tensor) -> float:
    """Return the standard error of the error of a model, which is binomial, or of its mean loss.

    Of a model of survival it is that of the loss minus the one of a constant, which is the same for all models: the
    partial likelihood compares rows with each other, and depends far more on their number than on the model.

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
    if loss is cox:
        return _of_survival(outputs, y)
    chunks = zip(outputs.chunk(CHUNKS), y.chunk(CHUNKS), strict=True)
    losses = torch.tensor([evaluate_outputs(some, loss, wanted).loss for some, wanted in chunks])
    spread = float(losses.std()) if len(losses) > 1 else 0.0
    return spread / math.sqrt(len(losses))


def _of_survival(outputs: Tensor, y: Tensor) -> float:
    """Return the standard error of the loss relative to a constant: the infinitesimal jackknife (Jaeckel 1972)."""
    with torch.enable_grad():
        weights = torch.ones(len(y), dtype=torch.float64, requires_grad=True)
        own, constant = outputs.cpu().double(), torch.zeros(len(y), 1, dtype=torch.float64)
        gain = weighted_cox(own, y, weights) - weighted_cox(constant, y, weights)
        [slopes] = torch.autograd.grad(gain, [weights])
    return float((slopes - gain.detach() / len(y)).norm())
