"""``report.html`` of a sweep: the frontier of all trials and a table of them, in one file that fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torchlasso._core.readable import percent
from torchlasso.figures import Series, frontier
from torchlasso.figures._embedding import embedded, page_axes
from torchlasso.figures._style import can_draw
from torchlasso.html import beside, document, figure, paragraph, section, table, tiles
from torchlasso.path import Point, badness
from torchlasso.runs.recipes import nothing_given
from torchlasso.runs.sweeping.record import DONE, FAILED, TRIALS, SweepRecord, SweepTrial, shown_value

MOST = 500  # trials in the table


def sweep_page(record: SweepRecord, name: str) -> str:
    """Make the page of a sweep that is finished.

    Args:
        record: the sweep.
        name: the name of its folder.
    """
    parts = (_headline(record), _frontier(record), _table(record), _failures(record), _configuration(record))
    return document(f"Sweep {name}", "".join(parts))


def sentence_of_choice(record: SweepRecord) -> str:
    """Say which trial is chosen, why, and how good it is on the test rows."""
    trial, test = record.choice, record.test
    if trial is None or trial.point is None or test is None:
        return "No trial is chosen."
    why = {
        "best": "the least validation error",
        "one-se": "the fewest weights left within one standard error of the best",
    }
    rule = why.get(record.options.choose, f"the fewest weights left within {record.options.tolerance:g} of the best")
    what, found = "loss" if test.error is None else "error", quality_of(badness(test), test.error is not None)
    return (
        f"Trial {trial.number} is chosen, {rule}: {trial.described}. It has {percent(trial.point.sparsity)} zeros, "
        f"{trial.point.nonzero:,} weights left in the whole model, and a test {what} of {found}."
    )


def quality_of(value: float | None, classes: bool) -> str:
    """Return an error in per cent, or a loss."""
    return "–" if value is None else f"{100 * value:.2f} %" if classes else f"{value:.4f}"


def _is_of_classes(record: SweepRecord) -> bool:
    return record.test is not None and record.test.error is not None


def _headline(record: SweepRecord) -> str:
    counts = {state: sum(trial.state == state for trial in record.trials) for state in (DONE, FAILED)}
    pruned = len(record.trials) - sum(counts.values())
    seconds = sum(trial.point.seconds for trial in record.trials if trial.point is not None)
    entries = [
        ("trials", f"{len(record.trials):,}", f"{pruned:,} pruned early, {counts[FAILED]:,} failed"),
        ("training", f"{seconds:,.0f} s", "of all trials together"),
    ]
    if record.choice is not None and record.choice.point is not None and record.test is not None:
        point, classes = record.choice.point, _is_of_classes(record)
        entries += [
            ("zeros", percent(point.sparsity), f"of trial {point.index}"),
            ("validation", quality_of(point.badness, classes), "used for the choice"),
            ("test", quality_of(badness(record.test), classes), "not used for the choice"),
        ]
    return paragraph(sentence_of_choice(record), "lead") + tiles(entries)


def _points(trials: Sequence[SweepTrial]) -> list[Point]:
    return [trial.point for trial in trials if trial.point is not None and trial.point.nonzero]


def _frontier(record: SweepRecord) -> str:
    every, best = _points(record.done), _points(record.frontier)
    if not every or not can_draw():
        return ""
    classes, choice = _is_of_classes(record), record.choice
    most = max(point.nonzero for point in every)
    series = [
        Series(name, [p.nonzero / most for p in points], [p.badness or 0.0 for p in points], joined=joined)
        for name, points, joined in (("frontier", best, True), ("trials", every, False))
    ]
    chosen = choice.point if choice is not None else None
    axes = frontier(
        series,
        page_axes(),
        measure=f"validation {'error' if classes else 'loss'}",
        percent=classes,
        chosen=None if chosen is None else (chosen.nonzero / most, chosen.badness or 0.0),
    )
    axes.set_xlabel("weights left, of the most that a trial has (log scale)")
    ends = [f"{quality_of(p.badness, classes)} at {p.nonzero:,}" for p in (best[0], best[-1])]
    label = f"Validation figures of {len(every)} trials against the weights left: from {ends[0]} to {ends[1]}"
    caption = "Each mark is a trial that was trained to its end. The line joins those that none with fewer "
    caption += f"weights surpasses. 100 % are {most:,} weights."
    return section("From dense to sparse", figure(embedded(axes, "frontier", label), caption))


def _table(record: SweepRecord) -> str:
    names, classes, best = [axis.name for axis in record.options.axes], _is_of_classes(record), record.frontier
    rows: list[list[str]] = []
    marked: list[int] = []
    for trial in record.trials[:MOST]:
        point = trial.point
        if trial.number == record.chosen:
            marked.append(len(rows))
        state = "chosen" if trial.number == record.chosen else "frontier" if trial in best else trial.state
        figures = (
            ["–"] * 3
            if point is None
            else [percent(point.sparsity), f"{point.nonzero:,}", quality_of(point.badness, classes)]
        )
        rows.append([f"{trial.number}", *(shown_value(trial.values[name]) for name in names), *figures, state])
    more = len(record.trials) - MOST
    notes = [paragraph(f"{more:,} more are in sweep.json.", "note")] if more > 0 else []
    where = paragraph(f"The folder of each that is finished is a run in {TRIALS}/: open it with torchlasso report.")
    heads = ("trial", *names, "zeros", "weights left", "validation", "")
    return section("All trials", beside(table(heads, rows, "The trials", marked=marked)), *notes, where)


def _failures(record: SweepRecord) -> str:
    rows = [[f"{trial.number}", trial.described, trial.error or ""] for trial in record.trials if trial.state == FAILED]
    if not rows:
        return ""
    return section("Failed trials", table(("trial", "values", "reason"), rows, "The failed trials", words=True))


def _configuration(record: SweepRecord) -> str:
    usual = nothing_given()
    given = {name: value for name, value in record.given.items() if value is not None and value != usual[name]}
    rows = [["--vary", "  ".join(record.options.vary)], ["--search", record.options.kind]]
    rows += [[f"--{name.replace('_', '-')}", _text(value)] for name, value in given.items()]
    return section("Configuration", table(("", ""), rows, "Options of the sweep", words=True))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
