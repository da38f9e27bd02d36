"""Training curves: the loss, the error, λ or the zeros, by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torchlasso._core.arguments import check_kind, check_sequence
from torchlasso.figures._style import COLOURS, DASHES, axes_or_new, dress, in_per_cent, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The names of the entries in a line of metrics, and those that are fractions, shown in per cent.
NAMES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "val_error": "validation error",
    "val_accuracy": "validation accuracy",
    "val_balanced_accuracy": "validation balanced accuracy",
    "val_macro_f1": "validation macro F1",
    "val_auc": "validation AUC",
    "val_log_loss": "validation log loss",
    "val_calibration_error": "validation calibration error",
    "val_r2": "validation R²",
    "val_rmse": "validation RMSE",
    "val_mae": "validation MAE",
    "sparsity": "exact zeros",
    "lam": "λ",
    "lr": "learning rate",
    "seconds": "seconds",
}
FRACTIONS = ("val_error", "val_accuracy", "val_balanced_accuracy", "sparsity", "switched")
RATIO = 20  # if the largest value is more than so many times the least, the scale is logarithmic


def training(
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    what: str = "loss",
    ax: Axes | None = None,
    *,
    by: str = "epoch",
    title: str = "",
) -> Axes:
    """Draw one of the metrics of several trainings, by epoch.

    Args:
        runs: at most five runs by name, each a list with a dictionary for every epoch, as in ``metrics.jsonl``.
        what: the entry to draw; an epoch without a finite number for it is left out.
        ax: the axes to draw in; without them, new ones.
        by: the entry on the x-axis.
        title: the title of the figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: no run has such an entry.

    Examples:
        >>> import torchlasso as tl
        >>> epochs = [{"epoch": 1, "lam": 1e-3}, {"epoch": 2, "lam": 2e-3}]
        >>> tl.figures.training({"torchlasso": epochs}, "lam").get_ylabel()
        'λ'
    """
    check_kind("training: runs", runs, Mapping, "a dictionary from names to lists of epochs")
    for name, epochs in runs.items():
        check_sequence(f"training: runs[{name!r}]", epochs, Mapping, "a list of dictionaries, one for each epoch")
    lines = {name: points_of(epochs, what, by) for name, epochs in runs.items()}
    values = [value for points in lines.values() for _, value in points]
    if not values:
        raise ValueError(f"no run has {what!r} by {by!r} to draw")
    axes, scale = axes_or_new(ax), 100 if what in FRACTIONS else 1
    for (name, points), colour, dashes in zip(lines.items(), COLOURS, DASHES, strict=False):
        if not points:
            continue  # but the others keep their colours
        x, y = zip(*points, strict=True)
        marker = "o" if len(x) < 3 else None
        axes.plot(
            x, [scale * v for v in y], color=colour, linestyle=dashes, linewidth=1.8, marker=marker, label=plain(name)
        )
    if scale == 1 and min(values) > 0 and max(values) > RATIO * min(values):
        axes.set_yscale("log")
    elif min(values) >= 0:
        axes.set_ylim(bottom=0)
    if scale == 100:
        in_per_cent(axes.yaxis)
    axes.xaxis.get_major_locator().set_params(integer=True)
    dress(axes, x=plain(by), y=NAMES.get(what) or plain(what), title=title, legend="above" if len(lines) > 1 else "")
    return axes  # type: ignore[no-any-return]


def points_of(epochs: Sequence[Mapping[str, Any]], what: str, by: str = "epoch") -> list[tuple[float, float]]:
    """Return the points of a curve; for λ, only epochs with a penalty."""
    found = [(line[by], line.get(what)) for line in epochs if by in line]
    points = [(x, y) for x, y in found if isinstance(y, int | float) and math.isfinite(y)]
    return points if what != "lam" or any(y for _, y in points) else []
