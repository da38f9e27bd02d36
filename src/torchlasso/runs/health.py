"""Signs that a training has failed, so that its figures are no result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.readable import percent
from torchlasso.runs.experiment import RowSplits, Training
from torchlasso.runs.summary import Summary
from torchlasso.training.trainer import LOSSES, Loss

Metrics = list[dict[str, Any]]
# A validation error that is this share of the way from the best epoch's to guessing, or more, is ruin.
RUINED = 0.25
ADVICE = "Try more epochs, a lower target, or --recipe latent."
# An error or a loss of this share of the best constant answer's, or more, counts as guessing.
GUESSING = 0.95
NAMES = 4  # at most so many layers are named


def warnings_of(training: Training, summary: Summary, rows: RowSplits, metrics: Metrics) -> tuple[str, ...]:
    """Return a sentence for each sign that a finished training has failed, or missed its target.

    Args:
        training: finished.
        summary: of its model.
        rows: of the experiment.
        metrics: of its epochs.
    """
    trainer = training.trainer
    found = [control.missed for control in trainer.controls]
    guessing = _of_the_test(summary, trainer.loss, rows)
    ruined = _of_the_way(trainer.loss, rows, metrics)
    if ruined and trainer.optimizer.param_groups[0].get("form") == "proximal":
        ruined += f" {ADVICE}"
    found += [guessing or ruined]
    found += [_of_the_loss(trainer.loss, rows.train[1], [line["loss"] for line in metrics])]
    if empty := empty_layers(trainer.model, training):
        found.append(empty)
    elif not summary.live_inputs:
        found.append("The model reads none of its inputs.")
    if trainer.epoch < trainer.plan.epochs:
        found.append(f"Training stopped after epoch {trainer.epoch}: {NO_GRADIENT}.")
    return tuple(sentence for sentence in found if sentence)


NO_GRADIENT = "no penalised weight has a gradient any more, so the network cannot recover"


def empty_layers(model: nn.Module, training: Training) -> str | None:
    """Return a sentence that names the penalised layers without any weight left; None if there is none."""
    names: dict[Tensor, str] = {p: name for name, p in model.named_parameters()}
    empty = [names[p] for p in _penalised(training) if p in names and not p.detach().count_nonzero()]
    if not empty:
        return None
    more = f" and {len(empty) - NAMES} more" if len(empty) > NAMES else ""
    return f"No weight is left in {', '.join(empty[:NAMES])}{more}."


def is_beyond_recovery(training: Training) -> bool:
    """Return whether the gradients of the last step are zero for all penalised weights."""
    grads = [p.grad for p in _penalised(training) if p.grad is not None]
    return bool(grads) and not any(bool(grad.count_nonzero()) for grad in grads)


def _penalised(training: Training) -> Iterable[Tensor]:
    return (p for group in training.groups() if group["penalty"] is not None for p in group["params"] if p.dim() > 1)


def _of_the_test(summary: Summary, loss: Loss, rows: RowSplits) -> str | None:
    value = summary.loss if summary.error is None else summary.error
    guess = _guess(loss, rows.train[1], rows.test[1], errors=summary.error is not None)
    if guess is None or value < GUESSING * guess:
        return None
    if summary.error is None:
        return f"The model is hardly better than guessing: a constant answer has a test loss of {guess:.4f}."
    return f"The model is hardly better than guessing: one answer for all rows has a test error of {100 * guess:.1f} %."


def _of_the_way(loss: Loss, rows: RowSplits, metrics: Metrics) -> str | None:
    """Return a sentence if training made the validation figures far worse than they were."""
    errors = bool(metrics) and metrics[0].get("val_error") is not None
    key = "val_error" if errors else "val_loss"
    values = [line[key] for line in metrics if line.get(key) is not None]
    guess = _guess(loss, rows.train[1], rows.validation[1], errors=errors) if values else None
    if guess is None or values[-1] <= min(values) + RUINED * max(0.0, guess - min(values)):
        return None
    best = min(range(len(values)), key=values.__getitem__)
    then, now = (percent(v) if errors else f"{v:.4f}" for v in (values[best], values[-1]))
    return (
        f"The validation {'error' if errors else 'loss'} rose from {then} after epoch {best + 1}, at "
        f"{percent(metrics[best]['sparsity'])} zeros, to {now} at the end: the network is ruined."
    )


def _guess(loss: Loss, known: Tensor, y: Tensor, *, errors: bool) -> float | None:
    """Return the error of one answer for all rows, or the loss of constant outputs; None where it is not known."""
    if not errors:
        return _constant_loss(loss, known, y)
    return float((y != torch.bincount(known).argmax()).double().mean())


def _of_the_loss(loss: Loss, y: Tensor, losses: Sequence[float]) -> str | None:
    guess = _constant_loss(loss, y, y)
    if guess is None or not losses or min(losses) < GUESSING * guess:
        return None
    return f"The training loss never fell clearly below {guess:.4f}, that of a constant answer."


def _constant_loss(loss: Loss, known: Tensor, y: Tensor) -> float | None:
    """Return the loss of the best constant outputs; None for a loss whose best constant is not known."""
    if loss is LOSSES["cross-entropy"]:
        shares = torch.bincount(known, minlength=int(y.max()) + 1).double() / len(known)
        return float(loss(shares.clamp_min(1e-12).log().expand(len(y), -1), y))
    if loss is LOSSES["mse"]:
        return float(loss(known.double().mean(dim=0).expand_as(y), y.double()))
    return None
