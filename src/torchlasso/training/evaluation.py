"""The outputs, the figures and the gradient of a model on all rows, in batches."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from torchlasso.distributed import processes
from torchlasso.training.losses import Loss
from torchlasso.training.regularisation import Regularisation
from torchlasso.training.rows import InputRows, evaluation_batches, input_batches
from torchlasso.training.survival import cox


@dataclass(frozen=True)
class Evaluation:
    """The mean loss on some rows, and for classes the accuracy and the error as fractions.

    ``balanced_error`` is the mean error of the classes: 1 minus the balanced accuracy. It is None for regression.
    """

    loss: float
    accuracy: float | None
    error: float | None
    balanced_error: float | None = None


@torch.no_grad()
def evaluate(model: nn.Module, loss: Loss, x: InputRows, y: Tensor) -> Evaluation:
    """Evaluate ``model`` on rows."""
    return evaluate_outputs(outputs_of(model, x), loss, y)


def evaluate_outputs(outputs: Tensor, loss: Loss, y: Tensor) -> Evaluation:
    """Compare outputs with their targets; integer targets are classes."""
    value = loss(outputs, y).item()
    if y.is_floating_point():
        return Evaluation(value, None, None)
    wrong = outputs.argmax(dim=1) != y
    error, rows = int(wrong.sum()) / len(y), torch.bincount(y)
    missed = torch.bincount(y[wrong], minlength=len(rows))[rows > 0]
    return Evaluation(value, 1 - error, error, float((missed / rows[rows > 0]).mean()))


def balanced_error_of_one_answer(y: Tensor) -> float:
    """Return the balanced error of the same answer for all rows: that of guessing.

    >>> balanced_error_of_one_answer(torch.tensor([0, 0, 0, 2]))
    0.5
    """
    return 1 - 1 / max(1, int(torch.bincount(y).count_nonzero()))


@torch.no_grad()
def outputs_of(model: nn.Module, x: InputRows) -> Tensor:
    """Compute the outputs of ``model`` for all rows, in batches and in evaluation mode."""
    model.eval()
    outputs = [model(inputs) for inputs in input_batches(x, processes.dealt(evaluation_batches(x)))]
    return torch.cat(processes.collected(outputs, x.device))


def full_gradient(
    model: nn.Module, loss: Loss, x: InputRows, y: Tensor, regularisation: Regularisation | None = None
) -> None:
    """Set every parameter's ``grad`` to the gradient of the mean loss over all rows, in evaluation mode.

    ``regularisation``: may have another loss that is minimised, or weights of the rows.
    """
    regularisation = regularisation or Regularisation()
    model.eval()
    model.zero_grad()
    slope = _slope(model, loss, x, y, regularisation) if loss is cox else None  # of rows that are at risk together
    batches = processes.dealt(evaluation_batches(x))
    for rows, inputs in zip(batches, input_batches(x, batches), strict=True):
        if slope is None:
            part = regularisation.minimised(loss, model(inputs), y[rows], rows) * (len(rows) / len(x))
        else:
            part = (model(inputs) * slope[rows]).sum()
        part.backward()  # type: ignore[no-untyped-call]
    for p in model.parameters():
        if p.grad is None:  # the loss does not depend on it
            p.grad = torch.zeros_like(p)
    processes.add_up_gradients_(model.parameters())


def _slope(model: nn.Module, loss: Loss, x: InputRows, y: Tensor, regularisation: Regularisation) -> Tensor:
    """Return the gradient of what is minimised by the outputs of all rows."""
    outputs = outputs_of(model, x).requires_grad_()
    every = torch.arange(len(y), device=y.device)
    [slope] = torch.autograd.grad(regularisation.minimised(loss, outputs, y, every), [outputs])
    return slope
