"""Figures of the quality of a model on some rows, each with an interval and that of a constant answer beside it."""

from torchlasso.runs.quality.judging import NO_FIGURES, Judge, names_of_targets
from torchlasso.runs.quality.measures import LOSS, MEASURES, Measure, measure_named
from torchlasso.runs.quality.record import ClassScore, Quality, Score, TargetScore

__all__ = [
    "LOSS",
    "MEASURES",
    "NO_FIGURES",
    "ClassScore",
    "Judge",
    "Measure",
    "Quality",
    "Score",
    "TargetScore",
    "measure_named",
    "names_of_targets",
]
