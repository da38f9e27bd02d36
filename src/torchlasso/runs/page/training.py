"""The training curves: loss, error, zeros and λ by epoch."""

from __future__ import annotations

from torchlasso.figures import training as draw
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.figures._training import FRACTIONS, NAMES, points_of
from torchlasso.html import figure, grid, section
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown

DRAWN = ("loss", "val_error", "val_loss", "sparsity", "lam")


@section_at(30)
def training_section(run: Shown) -> str:
    """Draw the training curves of a run and its comparisons."""
    lines = run.metrics
    if not run.drawable or not lines:
        return ""
    figures = []
    less = "val_loss" if run.summary.error is not None else None
    by = [] if run.summary.kept is None else [f"val_{run.summary.kept.measure}"]
    for what in dict.fromkeys([*(what for what in DRAWN if what != less), *by]):
        found = {name: points for name, epochs in lines.items() if (points := points_of(epochs, what))}
        if not found:
            continue
        ends = (
            f"{name} from {_shown(what, points[0][1])} to {_shown(what, points[-1][1])}"
            for name, points in found.items()
        )
        drawing = embedded(
            draw(lines, what, page_axes()), f"training-{what}", f"{NAMES[what]} by epoch: {'; '.join(ends)}"
        )
        figures.append(figure(drawing))
    return section("Training", grid(*figures))


def _shown(what: str, value: float) -> str:
    return f"{100 * value:.3g} %" if what in FRACTIONS else f"{value:.3g}"
