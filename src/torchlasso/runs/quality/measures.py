"""The measures of quality: their names, their directions, and the way their values are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torchlasso._core.specs import unknown

CLASSES, NUMBERS, SURVIVAL, ALL = "classes", "numbers", "times and events", "all targets"


@dataclass(frozen=True)
class Measure:
    """A measure of quality.

    Attributes:
        key: its name in files.
        title: its name for people.
        of: the targets that it is for: ``CLASSES``, ``NUMBERS``, ``SURVIVAL`` or ``ALL``.
        rises: whether a larger value is better.
        is_share: whether its values are shares, written as percentages.
        probabilities: whether it takes the softmax of the outputs as probabilities.
    """

    key: str
    title: str
    of: str
    rises: bool = False
    is_share: bool = False
    probabilities: bool = False

    @property
    def option(self) -> str:
        """Its name on the command line."""
        return self.key.replace("_", "-")

    def shown(self, value: float | None) -> str:
        """Format a value for people.

        >>> MEASURES["error"].shown(0.0481), MEASURES["auc"].shown(0.8712), MEASURES["rmse"].shown(12345.6)
        ('4.8 %', '0.871', '12,350')
        """
        if value is None:
            return "–"
        if self.is_share:
            return f"{100 * value:.1f} %"
        if self.of in (CLASSES, SURVIVAL) or self.key == "r2":
            return f"{round(value, 3) + 0.0:.3f}"  # no -0.000
        return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e9 else f"{float(f'{value:.4g}'):,.0f}"


MEASURES: Mapping[str, Measure] = {
    each.key: each
    for each in (
        Measure("error", "error", CLASSES, is_share=True),
        Measure("balanced_accuracy", "balanced accuracy", CLASSES, rises=True, is_share=True),
        Measure("macro_f1", "macro F1", CLASSES, rises=True),
        Measure("auc", "AUC", CLASSES, rises=True),
        Measure("log_loss", "log loss", CLASSES, probabilities=True),
        Measure("calibration_error", "calibration error", CLASSES, probabilities=True),
        Measure("concordance", "concordance", SURVIVAL, rises=True),
        Measure("r2", "R²", NUMBERS, rises=True),
        Measure("rmse", "RMSE", NUMBERS),
        Measure("mae", "MAE", NUMBERS),
    )
}

LOSS = Measure("loss", "loss", ALL)  # of the run, whatever it is


def measure_named(option: str) -> Measure:
    """Return the measure with this name on the command line, or the loss.

    Raises:
        ValueError: there is none.
    """
    known = {each.option: each for each in (LOSS, *MEASURES.values())}
    if option not in known:
        raise unknown("figure", option, known)
    return known[option]
