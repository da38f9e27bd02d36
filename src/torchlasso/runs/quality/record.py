"""The record of a model's quality on some rows, as a part of ``summary.json``."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchlasso.runs.quality.measures import MEASURES


@dataclass(frozen=True)
class Score:
    """A figure of quality.

    Attributes:
        value: the figure; None where it is not defined, such as an AUC without rows of a class.
        low, high: the interval that holds the figure of the whole population with a confidence of 95 %; None where
            there is none.
        constant: the figure of the best constant answer of the training rows: the most frequent class, with the
            shares of the classes as its probabilities, or the mean of the targets. None if it is not known.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    constant: float | None = None


@dataclass(frozen=True)
class ClassScore:
    """The quality for one class; a figure is None where its denominator is 0.

    Attributes:
        name: the class.
        precision: the share of the rows predicted as this class that belong to it.
        recall: the share of the rows of this class that are predicted as it.
        f1: the harmonic mean of both.
        support, predicted: the number of rows of this class, and of rows predicted as it.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@dataclass(frozen=True)
class TargetScore:
    """The figures of one of several targets of a regression, by the keys of the measures."""

    name: str
    scores: dict[str, Score]


@dataclass(frozen=True)
class Quality:
    """The quality of a model on some rows.

    Attributes:
        rows: the number of rows.
        scores: figure by the key of its measure; for several targets, the means over them.
        constant: the constant answer: the shares of the classes, or the means of the targets, in the training rows;
            empty if it is not known.
        classes: for each class; empty for regression.
        confusion: the number of rows by their class (a row each) and their prediction (a column each); empty for
            regression, and for more than 200 classes.
        targets: for each of several targets of a regression; else empty.
    """

    rows: int
    scores: dict[str, Score]
    constant: tuple[float, ...] = field(default=())
    classes: tuple[ClassScore, ...] = field(default=())
    confusion: tuple[tuple[int, ...], ...] = field(default=())
    targets: tuple[TargetScore, ...] = field(default=())

    def __post_init__(self) -> None:
        for scores in (self.scores, *(target.scores for target in self.targets)):
            if unknown := scores.keys() - MEASURES.keys():
                raise ValueError(f"there is no figure {min(unknown)!r}")
        if self.confusion and any(len(part) != len(self.classes) for part in (self.confusion, *self.confusion)):
            raise ValueError(f"the confusion matrix does not fit {len(self.classes)} classes")
        if self.classes and self.constant and len(self.constant) != len(self.classes):
            raise ValueError(f"the constant answer has {len(self.constant)} values for {len(self.classes)} classes")
