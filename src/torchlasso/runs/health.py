"""Signs that a training has failed, so that its figures are no result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torchlasso._core.readable import percent
from torchlasso.runs.quality import MEASURES
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.summary import Summary
from torchlasso.runs.training import Training
from torchlasso.training.evaluation import balanced_error_of_one_answer
from torchlasso.training.losses import LOSSES, Loss

Metrics = list[dict[str, Any]]
# A validation error that is this share of the way from the best epoch's to guessing, or more, is ruin.
RUINED = 0.25
ADVICE = "Try more epochs, a lower target, or --recipe latent."
# A balanced error or a loss of this share of the best constant answer's, or more, counts as guessing.
GUESSING = 0.95
# A difference between validation and test rows that chance makes less often than this is pointed out.
RARE = 0.001
NAMES = 4  # at most so many layers are named


def warnings_of(
    training: Training, summary: Summary, rows: RowSplits, metrics: Metrics, *, balanced: bool = False
) -> tuple[str, ...]:
    """Return a sentence for each sign that a finished training has failed, or missed its target.

    Args:
        training: finished.
        summary: of its model.
        rows: of the experiment.
        metrics: of its epochs.
        balanced: whether all classes have the same weight in training.
    """
    trainer = training.trainer
    found = [control.missed for control in trainer.controls]
    guessing = _of_the_test(summary, trainer.loss, rows)
    gap = _of_the_gap(summary, rows)
    kept = summary.kept
    ruined = _of_the_way(trainer.loss, rows, metrics if kept is None else metrics[: kept.epoch])
    if ruined and trainer.optimizer.param_groups[0].get("form") == "proximal":
        ruined += f" {ADVICE}"
    found += [guessing or ruined, gap]
    y = rows.train[1]
    answers = torch.bincount(y).nonzero().flatten() if balanced else y  # a model that reads nothing learns their shares
    found += [_of_the_loss(trainer.loss, answers, y, [line["loss"] for line in metrics])]
    if empty := empty_layers(trainer.model, training):
        found.append(empty)
    elif not summary.live_inputs:
        found.append("The model reads none of its inputs.")
    if trainer.epoch < trainer.plan.epochs and not (kept and kept.stopped_early):
        found.append(f"Training stopped after epoch {trainer.epoch}: {NO_GRADIENT}.")
    return tuple(sentence for sentence in found if sentence)


def doubts(summary: Summary, loss: Loss, rows: RowSplits) -> tuple[str, ...]:
    """Return a sentence if a model is hardly better than guessing, and one if validation and test rows disagree."""
    found = (_of_the_test(summary, loss, rows), _of_the_gap(summary, rows))
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
    if loss is LOSSES["cox"]:  # it falls little even for a good model
        return _of_the_order(summary)
    errors = summary.balanced_error is not None
    value = summary.loss if summary.balanced_error is None else summary.balanced_error
    guess = _guess(loss, rows.train[1], rows.test[1], errors=errors)
    if guess is None or value < GUESSING * guess:
        return None
    known, constant = (f"{100 - 100 * v:.1f} %" if errors else f"{v:.4f}" for v in (value, guess))
    what = "balanced accuracy" if errors else "loss"
    return (
        f"The model is hardly better than guessing: its {what} on the test rows is {known}, and one answer for all "
        f"rows has {constant}."
    )


def _of_the_order(summary: Summary) -> str | None:
    found = None if summary.test is None else summary.test.scores["concordance"].value
    if found is None or 1 - found < GUESSING * 0.5:
        return None
    return f"The model is hardly better than guessing: its concordance on the test rows is {found:.3f}, by chance 0.5."


def _of_the_gap(summary: Summary, rows: RowSplits) -> str | None:
    """Return a sentence if chance does not explain the difference between the validation and the test rows."""
    if summary.gap is None or summary.gap >= RARE or summary.test is None or summary.validation is None:
        return None
    measure = MEASURES["mae" if summary.error is None else "error"]
    test = "Mann and Whitney's test" if summary.error is None else "Fisher's exact test"
    advice = " Rows that belong together, such as those of one person, must be in one part: give --group."
    if rows.held_groups is not None:
        test, advice = "Mann and Whitney's test of the groups", ""
    held, tested = (measure.shown(part.scores[measure.key].value) for part in (summary.validation, summary.test))
    return (
        f"The {measure.title} is {held} on the validation rows and {tested} on the test rows, which is more than "
        f"chance ({test}: p = {summary.gap:.1g}): the test rows differ from the others.{advice}"
    )


def _of_the_way(loss: Loss, rows: RowSplits, metrics: Metrics) -> str | None:
    """Return a sentence if training made the validation figures far worse than they were."""
    errors = not rows.validation[1].is_floating_point()
    key = "val_balanced_error" if errors else "val_loss"
    values = [line[key] for line in metrics if line.get(key) is not None]
    guess = _guess(loss, rows.train[1], rows.validation[1], errors=errors) if values else None
    if guess is None or values[-1] <= min(values) + RUINED * max(0.0, guess - min(values)):
        return None
    best = min(range(len(values)), key=values.__getitem__)
    then, now = (percent(v) if errors else f"{v:.4f}" for v in (values[best], values[-1]))
    return (
        f"The {'balanced error' if errors else 'loss'} on the validation rows rose from {then} after epoch {best + 1}, "
        f"at {percent(metrics[best]['sparsity'])} zeros, to {now} at the end: the network is ruined."
    )


def _guess(loss: Loss, known: Tensor, y: Tensor, *, errors: bool) -> float | None:
    """Return the balanced error of one answer, or the loss of constant outputs; None where it is not known."""
    return balanced_error_of_one_answer(y) if errors else _constant_loss(loss, known, y)


def _of_the_loss(loss: Loss, known: Tensor, y: Tensor, losses: Sequence[float]) -> str | None:
    guess = _constant_loss(loss, known, y)
    if guess is None or not losses or min(losses) < GUESSING * guess:
        return None
    return f"The training loss never fell clearly below {guess:.4f}, that of a constant answer."


def _constant_loss(loss: Loss, known: Tensor, y: Tensor) -> float | None:
    """Return the loss of the best constant outputs; None for a loss whose best constant is not known."""
    if loss is LOSSES["cross-entropy"]:
        most = int(max(known.max(), y.max())) + 1
        predicted, there = (torch.bincount(each, minlength=most).double() / len(each) for each in (known, y))
        return -float((there * predicted.clamp_min(1e-12).log()).sum())
    if loss is LOSSES["mse"]:
        return float(loss(known.double().mean(dim=0).expand_as(y), y.double()))
    return None
