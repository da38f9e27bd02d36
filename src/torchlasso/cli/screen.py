"""The terminal: progress while training, and tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from torchlasso._core.readable import percent
from torchlasso._core.text import printable_lines
from torchlasso.path import Point
from torchlasso.runs.observer import Observer, Watch
from torchlasso.runs.quality import MEASURES, NO_FIGURES
from torchlasso.runs.quality.tables import figures_of
from torchlasso.runs.summary import Summary, side_by_side
from torchlasso.training.evaluation import Evaluation
from torchlasso.training.trainer import Step


class PlainConsole(Console):
    """A console that prints text literally: without markup, and without control sequences for the terminal."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **style: Any) -> Text:
        """Render text, escaped. All text goes through this method, including the cells of tables."""
        return super().render_str(printable_lines(text), **style)

    def tabulate(self, table: Table) -> None:
        """Print a table with all its figures, however narrow the terminal is, which breaks long lines; or in a file."""
        table.width = Measurement.get(self, self.options.update(width=WIDEST), table).maximum
        self.print(table, soft_wrap=True)


console = PlainConsole()
errors = PlainConsole(stderr=True)
WIDEST = 10_000  # characters of a line of a table
REFRESH = 0.3  # seconds between two counts of zeros
LINES = 20  # about this many epochs of a long training get a line


@contextmanager
def aside(wanted: bool) -> Iterator[None]:
    """Print on standard error if standard output is needed for something else."""
    before, console.stderr = console.stderr, wanted or console.stderr
    try:
        yield
    finally:
        console.stderr = before


class Screen(Observer):
    """An observer that prints a run to the terminal."""

    def say(self, line: str) -> None:
        say(line)

    @contextmanager
    def training(
        self, name: str, steps: int, done: int, sparsity: Callable[[], float], lam: Callable[[], float]
    ) -> Iterator[Watch]:
        """Show a live bar on a terminal, but not if the output goes to a file, which gets a line per epoch."""
        columns = (
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(name, total=steps, completed=done, note="")
            last = 0.0

            def watch(step: Step) -> None:
                nonlocal last
                if bar.disable or time.monotonic() - last < REFRESH:
                    return
                last = time.monotonic()
                note = f"loss {step.loss:.4f}  zeros {percent(sparsity())}  λ {lam():.3g}"
                bar.update(task, completed=step.step, note=note)

            yield watch

    def epoch(self, name: str, epochs: int, metrics: dict[str, Any]) -> None:
        """Print a line for a finished epoch; in a long training, for about twenty epochs and the last one."""
        if metrics["epoch"] % max(1, epochs // LINES) and metrics["epoch"] != epochs:
            return
        error = metrics.get("val_error")
        parts = [
            f"{name:<10}",
            f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}",
            f"loss {metrics['loss']:.4f}",
            f"val error {percent(error)}" if error is not None else "",
            f"val loss {metrics['val_loss']:.4f}" if error is None and "val_loss" in metrics else "",
            *(f"val {MEASURES[key].title} {MEASURES[key].shown(value)}" for key, value in _kept_by(metrics)),
            f"zeros {percent(metrics['sparsity'])}",
            f"λ {metrics['lam']:.3g}" if metrics["lam"] else "",
            f"{metrics['seconds']:.1f} s",
        ]
        say("  ".join(filter(None, parts)))

    def shrunk(self, epoch: int, left: float) -> None:
        """Print a line for a model that became smaller."""
        say(f"after epoch {epoch}, dead units were removed: {percent(left)} of the multiplications are left")

    def trained(self, summary: Summary) -> None:
        """Print a table of the run and its comparisons, the figures on the test rows, and the verdict."""
        console.print()
        console.tabulate(columns(["", *summary.runs], side_by_side(summary.runs)))
        _figures(summary)
        say(f"\n{summary.verdict}")
        for sentence in summary.warnings:
            say(f"warning: {sentence}")

    @contextmanager
    def path(self, points: int) -> Iterator[Callable[[int, int], Watch]]:
        """Show a live bar for the current point; the yielded function takes the point's number and its steps."""
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=1, note="")

            def begin(index: int, steps: int) -> Watch:
                bar.reset(task, total=steps, description=f"point {index + 1}/{points}", note="")

                def watch(step: Step) -> None:
                    if not bar.disable:
                        bar.update(task, completed=step.step, note=f"loss {step.loss:.4f}")

                return watch

            yield begin

    def point(self, point: Point, points: int) -> None:
        """Print a line for a trained point."""
        parts = [
            f"point {point.index + 1:>{len(str(points))}}/{points}",
            f"zeros {percent(point.sparsity):>6}",
            f"λ {point.lam:.3g}" if point.lam else "dense",
            _measured("val", point.validation),
            _measured("test", point.test),
            f"{point.seconds:.1f} s" + f" in {point.tries} trainings" * (point.tries > 1),
        ]
        say("  ".join(filter(None, parts)))

    def chosen(self, points: Sequence[Point], chosen: Point, summary: Summary) -> None:
        """Print the points, with a mark at the chosen one, and the figures of its model."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in ("", "zeros", "weights left", "λ", "validation", "test"):
            table.add_column(head, justify="right" if head else "left")
        for point in points:
            mark = "→" if point.index == chosen.index else ""
            cells = (_quality(found) for found in (point.validation, point.test))
            style = "bold" if mark else None
            table.add_row(mark, percent(point.sparsity), f"{point.nonzero:,}", f"{point.lam:.3g}", *cells, style=style)
        console.print()
        console.tabulate(table)
        say(
            f"\nChosen: point {chosen.index + 1}, {percent(chosen.sparsity)} zeros, {chosen.nonzero:,} weights left, "
            f"test {'loss' if chosen.test and chosen.test.error is None else 'error'} {_quality(chosen.test)}."
        )
        _figures(summary)


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Make a table of text whose first column is on the left, and the others on the right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _kept_by(metrics: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the figure by which the best epoch is kept, unless the line has it already."""
    return [(key, metrics[f"val_{key}"]) for key in MEASURES if key != "error" and f"val_{key}" in metrics]


def _figures(summary: Summary) -> None:
    """Print all figures on the test rows, or the reason why there are none."""
    if summary.test is None:
        say(f"\n{NO_FIGURES}")
        return
    head, *rows = figures_of(summary.test, "test", {"validation": summary.validation})
    console.print()
    console.tabulate(columns(head, rows))


def say(line: str) -> None:
    """Print a line of plain text without wrapping it."""
    console.print(line, soft_wrap=True)


def _measured(part: str, found: Evaluation | None) -> str:
    if found is None:
        return ""
    return f"{part} {'loss' if found.error is None else 'error'} {_quality(found)}"


def _quality(found: Evaluation | None) -> str:
    if found is None:
        return "–"
    return f"{found.loss:.4f}" if found.error is None else f"{100 * found.error:.2f} %"
