"""Figures of the quality of a model on some rows, each with an interval and that of a constant answer beside it."""

from torchlasso.runs.quality.judging import NO_FIGURES, Judge
from torchlasso.runs.quality.measures import MEASURES, Measure
from torchlasso.runs.quality.record import ClassScore, Quality, Score, TargetScore

__all__ = ["MEASURES", "NO_FIGURES", "ClassScore", "Judge", "Measure", "Quality", "Score", "TargetScore"]
