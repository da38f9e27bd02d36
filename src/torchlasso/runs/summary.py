"""The summary of a run: the content of ``summary.json``, and the table that compares runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torchlasso._core.readable import percent
from torchlasso.data.card import DataCard
from torchlasso.diagnostics.stationarity import Stationarity
from torchlasso.runs.quality import LOSS, MEASURES, Measure, Quality, measure_named
from torchlasso.runs.records import NEWER


@dataclass(frozen=True)
class Refit:
    """The result of a refit.

    Attributes:
        kept: whether the model is the refitted one.
        before, after: the figure on the validation rows before and after the refit.
        epochs, seconds: the length of the refit.
        measure: the key of that figure; None in files of earlier versions, for the error, or the loss of a regression.
    """

    kept: bool
    before: float
    after: float
    epochs: int
    seconds: float
    measure: str | None = None

    def __post_init__(self) -> None:
        _ = self.named  # raises an error if there is no such measure

    @property
    def named(self) -> Measure | None:
        """The measure."""
        return None if self.measure is None else measure_named(self.measure.replace("_", "-"))


@dataclass(frozen=True)
class Kept:
    """The epoch that was kept as the best.

    Attributes:
        epoch: its number, from 1 on.
        counted: the number of epochs that were compared.
        measure: the key of the figure on the validation rows by which they were.
        value: that figure.
        stopped_early: whether training stopped because no epoch was better for long.
    """

    epoch: int
    counted: int
    measure: str
    value: float
    stopped_early: bool

    def __post_init__(self) -> None:
        _ = self.named  # raises an error if there is no such measure

    @property
    def named(self) -> Measure:
        """The measure."""
        return measure_named(self.measure.replace("_", "-"))


@dataclass(frozen=True)
class Summary:
    """The results of a run.

    Attributes:
        accuracy, error: on the test rows, as fractions; None for regression.
        balanced_error: the mean of the errors of the classes on the test rows; None for regression.
        loss: the mean loss on the test rows, without the penalty.
        sparsity, nonzero, penalised: the share of zeros among the penalised weights, and the counts of nonzero and of
            all penalised weights.
        parameters, bytes: the size of the whole model.
        units, live_units: output units of the penalised layers, and the number with a nonzero incoming weight.
        inputs, live_inputs: inputs of the first penalised layer, or the words of texts, and the number that is read.
        lam, epochs, seconds: λ at the end, the number of epochs and their time, without a refit.
        stationarity: on the whole training set, in units of λ; None if λ is 0.
        test, validation: all figures on these rows; None without scikit-learn, or without such rows.
        gap: the probability of such a difference between the validation and the test rows by chance, see
            :func:`torchlasso.runs.quality.gap.chance_of_gap`; None without one of them.
        kept: the epoch whose weights were kept, with ``--keep-best``; else the last epoch's are.
        refit: the result of the refit, if there was one.
        target_met: whether training ended at its target; None without one.
        warnings: signs that training has failed, a sentence each; empty if there are none.
        regularisation: the regularisation of the training and of its comparisons beside the penalty, in words.
        data: what was read; None for a comparison.
        features_read: the names of the features that are read, strongest first; None for other rows than those of
            tables, for a comparison, and if it is not known.
        penalised_names: the names of the parameters with a penalty; None in files of earlier versions.
        dense, loss_term: the comparison runs, if there were any.
    """

    accuracy: float | None
    error: float | None
    loss: float
    sparsity: float
    nonzero: int
    penalised: int
    parameters: int
    bytes: int
    units: int
    live_units: int
    inputs: int
    live_inputs: int
    lam: float
    epochs: int
    seconds: float
    stationarity: Stationarity | None
    balanced_error: float | None = None
    test: Quality | None = None
    validation: Quality | None = None
    gap: float | None = None
    kept: Kept | None = None
    refit: Refit | None = None
    target_met: bool | None = None
    warnings: tuple[str, ...] = field(default=(), metadata=NEWER)
    regularisation: tuple[str, ...] = field(default=(), metadata=NEWER)
    data: DataCard | None = None
    features_read: tuple[str, ...] | None = None
    penalised_names: tuple[str, ...] | None = None
    dense: Summary | None = None
    loss_term: Summary | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to the content of ``summary.json``: without the parts that there are not, such as a refit."""
        entries = asdict(self)
        for key in ("refit", "kept", "data", "features_read", "penalised_names"):
            if entries[key] is None:
                del entries[key]
        for key in ("dense", "loss_term"):
            run = getattr(self, key)
            entries.pop(key) if run is None else entries.update({key: run.to_dict()})
        return entries

    @property
    def runs(self) -> dict[str, Summary]:
        """This run and its comparisons, by their displayed names."""
        named = {"torchlasso": self, "dense": self.dense, "loss-term": self.loss_term}
        return {name: run for name, run in named.items() if run is not None}

    @property
    def verdict(self) -> str:
        """The gain, in one sentence."""
        zeros = f"{percent(self.sparsity)} of the weights are exactly zero"
        left = f"{self.nonzero:,} of {self.penalised:,} remain"
        key = "error" if self.error is not None else "r2" if self.test and "r2" in self.test.scores else LOSS.key
        title = LOSS.title if key == LOSS.key else MEASURES[key].title
        dense = f" (dense {_quality(self.dense, key)})" if self.dense else ""
        found = f"{zeros}: {left}, at a test {title} of {_quality(self, key)}{dense}."
        return f"{found}{self._of_regularisation()}{self._of_kept()}{self._of_refit()}"

    def _of_regularisation(self) -> str:
        return f" Trained with {', '.join(self.regularisation)}." if self.regularisation else ""

    def _of_kept(self) -> str:
        if self.kept is None:
            return ""
        measure = self.kept.named
        best = f"the best {measure.title} on the validation rows, {measure.shown(self.kept.value)}"
        compared = f", of {self.kept.counted} that were compared" if self.kept.counted < self.epochs else ""
        early = " Training stopped early." if self.kept.stopped_early else ""
        return f" Epoch {self.kept.epoch} of {self.epochs} is kept, with {best}{compared}.{early}"

    def _of_refit(self) -> str:
        if self.refit is None:
            return ""
        named = self.refit.named or (LOSS if self.error is None else MEASURES["error"])
        digits = {LOSS.key: ".4f", "error": ".2%"}.get(named.key)  # a refit changes little
        before, after = (
            named.shown(value) if digits is None else format(value, digits).replace("%", " %")
            for value in (self.refit.before, self.refit.after)
        )
        measure = named.title
        outcome = "is kept" if self.refit.kept else "is not kept"
        return f" The refit {outcome}: it changed the validation {measure} from {before} to {after}."


def _quality(run: Summary, key: str) -> str:
    if key == "error":
        return percent(run.error or 0.0)
    return f"{run.loss:.4f}" if key == LOSS.key or run.test is None else MEASURES[key].shown(run.test.scores[key].value)


def _judged(runs: Sequence[Summary]) -> dict[str, list[str]]:
    """Return the rows of the balanced accuracy and of R², whichever the targets have."""
    keys = [key for key in ("balanced_accuracy", "r2") if all(run.test and key in run.test.scores for run in runs)]
    return {
        MEASURES[key].title: [MEASURES[key].shown(run.test.scores[key].value) if run.test else "–" for run in runs]
        for key in keys
    }


def side_by_side(runs: Mapping[str, Summary]) -> list[list[str]]:
    """Make a table that compares runs: a row for each figure, with its name and a cell for each run."""
    errors = {"test error": [percent(run.error) if run.error is not None else "–" for run in runs.values()]}
    figures = {
        **(errors if any(run.error is not None for run in runs.values()) else {}),  # of numbers there is none
        **_judged(list(runs.values())),
        "test loss": [f"{run.loss:.4f}" for run in runs.values()],
        "exact zeros": [percent(run.sparsity) for run in runs.values()],
        "weights left": [f"{run.nonzero:,} of {run.penalised:,}" for run in runs.values()],
        "live units": [f"{run.live_units:,} of {run.units:,}" for run in runs.values()],
        "live inputs": [f"{run.live_inputs:,} of {run.inputs:,}" for run in runs.values()],
        "training time": [f"{run.seconds:.1f} s" for run in runs.values()],
    }
    return [[name, *cells] for name, cells in figures.items()]
