"""Keep the best epoch of a training, and stop where none is better for long: ``--keep-best`` and ``--patience``.

Only epochs that could be the result count: with a hold, epochs that end in it, since the zeros are final there and the
learning rate falls; with a target, epochs that meet it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torchlasso._core.extras import require
from torchlasso.control.hold import hold_start
from torchlasso.runs.choices import BALANCED
from torchlasso.runs.evaluation import judge_of
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.options import Options
from torchlasso.runs.quality import LOSS, MEASURES, Judge, Measure, measure_named
from torchlasso.runs.quality.measures import CLASSES, NUMBERS
from torchlasso.runs.rows import RowSplits
from torchlasso.runs.summary import Kept
from torchlasso.runs.training import Training
from torchlasso.training.evaluation import Evaluation


def check_keeping(experiment: Experiment, rows: RowSplits) -> None:
    """Refuse a figure of ``--keep-best`` that the targets, the loss or the validation rows do not have.

    Raises:
        ValueError: the figure is for other targets, or not defined on the validation rows; scikit-learn is missing.
    """
    text = experiment.options.keep_best
    if text is None or (measure := measure_named(text)) is LOSS:
        return
    flag, key, y = f"--keep-best {text}", measure.key, rows.validation[1]
    judge = judge_of(experiment, rows)
    if key not in judge.measures:
        suitable = ", ".join(each.option for each in (LOSS, *map(MEASURES.__getitem__, judge.measures)))
        what = CLASSES if judge.classes else NUMBERS
        why = "the loss is not cross-entropy" if measure.of == what else f"the targets are {what}"
        raise ValueError(f"{flag} does not apply, since {why}; there are: {suitable}")
    require("sklearn", "sklearn", flag)
    if judge.value(key, y.new_zeros(len(y), experiment.inputs.outputs).float(), y) is None:
        need = "validation rows of every class" if judge.classes else "validation rows with different targets"
        raise ValueError(f"{flag} needs {need}; give a larger --validation, or another figure")


def measure_of_choice(experiment: Experiment) -> Measure:
    """Return the figure by which models of an experiment are compared on the validation rows.

    It is that of ``--keep-best`` if it is given; else the loss for numbers, and the error for classes, balanced where
    the classes have balanced weights.
    """
    options = experiment.options
    if options.keep_best is not None:
        return measure_named(options.keep_best)
    if not experiment.inputs.classes:
        return LOSS
    return MEASURES["balanced_accuracy" if options.class_weight == BALANCED else "error"]


def figure_of(measure: Measure, judge: Judge, found: Evaluation, outputs: Tensor, y: Tensor) -> float:
    """Return a figure on some rows.

    Raises:
        FloatingPointError: it is infinite, NaN or not defined.
    """
    known = {LOSS.key: found.loss, "error": found.error}
    if found.balanced_error is not None:
        known["balanced_accuracy"] = 1 - found.balanced_error
    value = known[measure.key] if measure.key in known else judge.value(measure.key, outputs, y)
    if value is None or not math.isfinite(value):
        raise FloatingPointError(f"the validation {measure.title} became {value}")
    return value


class BestEpoch:
    """The best epoch of a training so far, with its weights.

    Of epochs with the same figure, the last is kept, which has the most zeros.

    Args:
        options: of the run, with ``keep_best``.
        judge: computes the figure.
        training: whose epochs are compared.
    """

    def __init__(self, options: Options, judge: Judge, training: Training) -> None:
        self.measure = measure_named(options.keep_best or LOSS.option)
        self.judge, self.training, self.patience = judge, training, options.patience
        trainer = training.trainer
        first = trainer.batches * options.epochs  # without epochs that were added
        self.start = hold_start(first, options.hold) if options.hold else 0  # for comparisons, too
        self.begun = options.extensions[-1].after if options.extensions else 0  # where patience starts anew
        self.epoch, self.counted, self.waited = 0, 0, 0
        self.value: float | None = None
        self.lams: list[float] = []
        self.weights: dict[str, Tensor] = {}

    @classmethod
    def of(cls, experiment: Experiment, training: Training, rows: RowSplits) -> BestEpoch | None:
        """Make the one that the options ask for, if they do."""
        if experiment.options.keep_best is None:
            return None
        return cls(experiment.options, judge_of(experiment, rows), training)

    def figure(self, found: Evaluation, outputs: Tensor, y: Tensor) -> dict[str, float]:
        """Return the figure as an entry of the epoch's metrics."""
        return {f"val_{self.measure.key}": figure_of(self.measure, self.judge, found, outputs, y)}

    def consider(self, line: Mapping[str, Any]) -> None:
        """Keep the epoch that has just ended if it is the best, by its metrics."""
        trainer, value = self.training.trainer, float(line[f"val_{self.measure.key}"])
        if trainer.epoch * trainer.batches < self.start or any(control.missed for control in trainer.controls):
            return
        gain = math.inf if self.value is None else (value - self.value) * (1 if self.measure.rises else -1)
        self.counted, self.waited = self.counted + 1, self.waited + 1
        if gain < 0:
            return
        self.waited = self.waited if gain == 0 else 0
        self.epoch, self.value = trainer.epoch, value
        self.lams = [group["lam"] for group in self.training.groups()]
        self.weights = {name: w.detach().clone() for name, w in trainer.model.state_dict().items()}

    @property
    def is_over(self) -> bool:
        """True if so many epochs were no better that training stops."""
        return self.patience is not None and min(self.waited, self.training.trainer.epoch - self.begun) >= self.patience

    @property
    def reason(self) -> str:
        """The reason to stop, in words."""
        return f"the {self.measure.title} on the validation rows was not better for {self.waited} epochs"

    def restore_(self) -> Kept | None:
        """Put the weights of the best epoch into the model, with their λ; None if no epoch counts."""
        trainer = self.training.trainer
        if self.value is None:
            return None
        trainer.model.load_state_dict(self.weights)
        for group, lam in zip(self.training.groups(), self.lams, strict=True):
            group["lam"] = lam
        early = self.is_over and trainer.epoch < trainer.plan.epochs
        return Kept(self.epoch, self.counted, self.measure.key, self.value, stopped_early=early)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs for an exact resume."""
        names = ("epoch", "value", "counted", "waited", "lams", "weights")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.epoch, self.counted, self.waited = (int(state[name]) for name in ("epoch", "counted", "waited"))
        self.value, self.lams, self.weights = state["value"], list(state["lams"]), dict(state["weights"])
