"""The result of a selection: the content of ``selection.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from torchlasso._core.readable import percent
from torchlasso.data.card import DataCard
from torchlasso.runs.records import NEWER


@dataclass(frozen=True)
class Partner:
    """A column that was left out and says nearly the same as a selected one."""

    name: str
    correlation: float


@dataclass(frozen=True)
class RankedFeature:
    """A selected feature.

    Attributes:
        rank: its place, from 1 on.
        name: of its column.
        frequency: the share of the halves of the rows that select it.
        q_value: the least false discovery rate at which it is selected; None without ``--fdr``.
        lam: the largest λ at which a model of all rows reads it.
        partners: columns that are left out, and correlated with it.
    """

    rank: int
    name: str
    frequency: float
    q_value: float | None
    lam: float
    partners: tuple[Partner, ...]


@dataclass(frozen=True)
class CurvePoint:
    """The score of models on rows that they were not trained on.

    Attributes:
        features: the mean number of features that they read.
        score: the mean over the folds: the accuracy, R² for numbers, the concordance index for survival.
        spread: its standard error.
    """

    features: float
    score: float
    spread: float


@dataclass(frozen=True)
class Selection:
    """The result of a selection.

    Attributes:
        measure: the score: ``"accuracy"``, ``"R²"`` or ``"concordance"``.
        peer: the name of the L1 model that it is compared with, from scikit-learn where it has one.
        every: the name of the model of all features.
        rows, groups: the number of rows, and of their groups if there are any.
        columns: the number of all columns.
        constant: columns of one value.
        copies: columns that are copies of others, with their names.
        chosen: the selected features, in order.
        others: the features that some halves select, in order, with their frequencies.
        halves: the number of halves.
        folds: the number of folds.
        curve: over the number of features; for each λ, the selected features are fitted again without the penalty.
        l1: the same for the L1 model ``peer``.
        one_se: the fewest features within one standard error of the best.
        at: with as many features as are chosen, selected anew in each fold and fitted without the penalty; None if none
            are.
        l1_at: with as many features, those of the largest weights in the L1 model, fitted in the same way.
        everything: with all features, by the model ``every``.
        seconds: the time since the last start; a resumed selection reads what was kept.
        constant_score: the accuracy of the most frequent class as the answer for all rows; None for other scores.
        data: what was read.
    """

    measure: str
    peer: str
    every: str
    rows: int
    groups: int | None
    columns: int
    constant: tuple[str, ...]
    copies: dict[str, str]
    chosen: tuple[RankedFeature, ...]
    others: tuple[tuple[str, float], ...]
    halves: int
    folds: int
    curve: tuple[CurvePoint, ...]
    l1: tuple[CurvePoint, ...]
    one_se: CurvePoint
    at: CurvePoint | None
    l1_at: CurvePoint | None
    everything: CurvePoint
    seconds: float
    constant_score: float | None = field(default=None, metadata=NEWER)
    data: DataCard | None = field(default=None, metadata=NEWER)

    def to_dict(self) -> dict[str, Any]:
        """Convert to numbers, strings and lists."""
        return asdict(self)

    def shown(self, point: CurvePoint) -> str:
        """Format a score with its standard error."""
        if self.measure == "accuracy":
            return f"{percent(point.score)} ± {100 * point.spread:.1f}"
        return f"{point.score:.3f} ± {point.spread:.3f}"

    @property
    def verdict(self) -> str:
        """The result, in a few sentences."""
        left = self.columns - len(self.constant) - len(self.copies)
        rest = f"{'the only feature' if left == 1 else f'all {left:,} features'} {self.shown(self.everything)}"
        if self.constant_score is not None:
            rest += f"; one answer for all rows {percent(self.constant_score)}"
        if self.at is None or self.l1_at is None:
            return f"No feature is selected. {self.measure[0].upper()}{self.measure[1:]} with {rest}."
        fewest = round(self.one_se.features)
        enough = f"{_counted(fewest)} {'is' if fewest == 1 else 'are'} enough" if fewest else "A constant is enough"
        return (
            f"{_counted(len(self.chosen))} of {self.columns:,}: {self.measure} {self.shown(self.at)} on rows of other "
            f"folds; as many by {self.peer} {self.shown(self.l1_at)}; {rest}. {enough} to be within one "
            "standard error of the best."
        )


def _counted(features: int) -> str:
    return f"{features:,} feature{'' if features == 1 else 's'}"
