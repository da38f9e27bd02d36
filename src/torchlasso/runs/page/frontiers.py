"""The frontier: a run and its comparisons, or the points of a path with a slider."""

from __future__ import annotations

from torchlasso._core.readable import percent
from torchlasso.figures import Series
from torchlasso.figures import frontier as draw
from torchlasso.figures._embedding import embedded, page_axes, places
from torchlasso.html import beside, figure, section, table
from torchlasso.path import Point, badness
from torchlasso.runs.options import DENSE
from torchlasso.runs.page.points import Mark, shown_points, slider
from torchlasso.runs.page.sections import section_at
from torchlasso.runs.page.shown import Shown
from torchlasso.runs.summary import side_by_side

MARK = "fill: none; stroke: var(--orange); stroke-width: 2.5"


@section_at(20)
def frontier_section(run: Shown) -> str:
    """Show the quality against the share of weights left."""
    if run.path is not None:
        return _of_path(run, run.path)
    series = [
        Series(name, [one.nonzero / one.penalised], [one.loss if one.error is None else one.error])
        for name, one in run.summary.runs.items()
        if one.nonzero
    ]
    drawing = ""
    if len(series) > 1 and run.drawable:
        axes = draw(series, page_axes(), measure=f"test {run.measure}", percent=run.summary.error is not None)
        found = (f"{line.name} {run.quality(line.values[0])} at {percent(line.left[0])}" for line in series)
        label = f"Test {run.measure} against the share of weights left: {', '.join(found)}"
        drawing = figure(embedded(axes, "frontier", label))
    rows = side_by_side(run.summary.runs)
    compared = table(("", *run.summary.runs), rows, "The run and its comparisons")
    return section("Accuracy and sparsity", beside(drawing, compared))


def series_of(points: list[Point]) -> list[Series]:
    """Return the lines of a path's frontier."""
    left = [1 - point.sparsity for point in points]
    return [
        Series("validation", left, [p.badness or 0.0 for p in points], [p.spread or 0.0 for p in points]),
        Series("test", left, [badness(p.test) for p in points if p.test is not None]),
    ]


def _of_path(run: Shown, points: list[Point]) -> str:
    drawing, marks = _drawn(run, points) if run.drawable else ("", [None] * len(points))
    rows = [
        [
            f"{point.index + 1}{', chosen' if point.index == run.chosen.index else ''}",
            percent(point.sparsity),
            f"{point.nonzero:,}",
            f"{point.lam:.3g}" if point.lam else DENSE,
            *(run.quality(badness(found)) if found else "–" for found in (point.validation, point.test)),
        ]
        for point in points
    ]
    heads = ("point", "zeros", "weights left", "λ", "validation", "test")
    listed = table(heads, rows, "The points of the path", marked=[run.chosen.index])
    beneath = shown_points(run, marks)
    return section("From dense to sparse", beside(f"<div>{drawing}{slider(run)}</div>", listed), beneath)


def _drawn(run: Shown, points: list[Point]) -> tuple[str, list[Mark]]:
    """Draw the figure with a movable mark; also return the position of each point, None for a point without weights."""
    classes, chosen = run.summary.error is not None, (1 - run.chosen.sparsity, run.chosen.badness or 0.0)
    axes = draw(series_of(points), page_axes(), measure=run.measure, percent=classes, chosen=chosen)
    ends = [
        f"{run.quality(p.badness or 0.0)} at {percent(1 - p.sparsity)}" for p in (points[0], points[-1], run.chosen)
    ]
    label = (
        f"Validation and test {run.measure} against the share of weights left: validation from {ends[0]} to {ends[1]}"
    )
    drawing = embedded(axes, "frontier", f"{label}; chosen is {ends[2]}")
    heights = [(100 if classes else 1) * (point.badness or 0.0) for point in points]
    marks: list[Mark] = [
        places(axes, [(1 - point.sparsity, height)])[0] if point.nonzero else None
        for point, height in zip(points, heights, strict=True)
    ]
    x, y = marks[run.chosen.index] or (0, 0)
    circle = f'<circle id="mark" class="screen" cx="{x}" cy="{y}" r="8" style="{MARK}"/>'
    return figure(drawing.replace("</svg>", f"{circle}</svg>")), marks
