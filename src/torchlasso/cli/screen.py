"""What is shown at the terminal: progress while training, and tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from torchlasso.cli.summary import Summary, side_by_side
from torchlasso.report import percent
from torchlasso.training import Step

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
REFRESH = 0.3  # seconds between two counts of zeros
LINES = 20  # for the epochs of a long training


@contextmanager
def progress(
    name: str, steps: int, done: int, sparsity: Callable[[], float], lam: Callable[[], float]
) -> Iterator[Callable[[Step], None]]:
    """A live bar on a terminal; nothing where output goes to a file, for which there are lines per epoch."""
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


def epoch_line(name: str, epochs: int, metrics: dict[str, Any]) -> None:
    """A line for an epoch that is over; of a long training, for about twenty epochs and the last."""
    if metrics["epoch"] % max(1, epochs // LINES) and metrics["epoch"] != epochs:
        return
    error = metrics.get("val_error")
    parts = [
        f"{name:<10}",
        f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}",
        f"loss {metrics['loss']:.4f}",
        f"val error {percent(error)}" if error is not None else "",
        f"val loss {metrics['val_loss']:.4f}" if error is None and "val_loss" in metrics else "",
        f"zeros {percent(metrics['sparsity'])}",
        f"λ {metrics['lam']:.3g}" if metrics["lam"] else "",
        f"{metrics['seconds']:.1f} s",
    ]
    say("  ".join(filter(None, parts)))


def comparison(summary: Summary) -> None:
    """The run and its comparisons side by side, and what was won."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in summary.runs:
        table.add_column(name, justify="right")
    for row in side_by_side(summary.runs):
        table.add_row(*row)
    console.print()
    console.print(table)
    say(f"\n{summary.verdict}")


def say(line: str) -> None:
    """A line of plain text, as long as it is."""
    console.print(line, markup=False, soft_wrap=True)
