"""What is shown at the terminal: progress while training, and tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from torchlasso.report import percent
from torchlasso.training import Step

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
REFRESH = 0.3  # seconds between two counts of zeros


@contextmanager
def progress(
    name: str, steps: int, done: int, sparsity: Callable[[], float], lam: float
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
            note = f"loss {step.loss:.4f}  zeros {percent(sparsity())}  λ {lam:.3g}"
            bar.update(task, completed=step.step, note=note)

        yield watch


def epoch_line(name: str, epochs: int, metrics: dict[str, Any]) -> None:
    """One line for an epoch that is over."""
    error = metrics.get("val_error")
    parts = [
        f"{name:<10}",
        f"epoch {metrics['epoch']:>{len(str(epochs))}}/{epochs}",
        f"loss {metrics['loss']:.4f}",
        f"val error {percent(error)}" if error is not None else "",
        f"val loss {metrics['val_loss']:.4f}" if error is None and "val_loss" in metrics else "",
        f"zeros {percent(metrics['sparsity'])}",
        f"λ {metrics['lam']:.3g}",
        f"{metrics['seconds']:.1f} s",
    ]
    console.print("  ".join(filter(None, parts)), markup=False, soft_wrap=True)


def comparison(summaries: dict[str, dict[str, Any]]) -> None:
    """The runs side by side."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in summaries:
        table.add_column(name, justify="right")
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("test error", lambda s: percent(s["error"]) if s["error"] is not None else "–"),
        ("test loss", lambda s: f"{s['loss']:.4f}"),
        ("exact zeros", lambda s: percent(s["sparsity"])),
        ("weights left", lambda s: f"{s['nonzero']:,} of {s['penalised']:,}"),
        ("live units", lambda s: f"{s['live_units']:,} of {s['units']:,}"),
        ("live inputs", lambda s: f"{s['live_inputs']:,} of {s['inputs']:,}"),
        ("training time", lambda s: f"{s['seconds']:.1f} s"),
    ]
    for label, cell in rows:
        table.add_row(label, *(cell(summary) for summary in summaries.values()))
    console.print(table)


def verdict(ours: dict[str, Any]) -> str:
    """What was won, in one sentence."""
    left = f"{ours['nonzero']:,} of {ours['penalised']:,} remain"
    kept = f"{percent(ours['sparsity'])} of the weights are exactly zero: {left}"
    measure, good = ("error", percent) if ours["error"] is not None else ("loss", "{:.4f}".format)
    result = f"at a test {measure} of {good(ours[measure])}"
    dense = ours.get("dense")
    return f"{kept}, {result}" + (f" (dense {good(dense[measure])})." if dense else ".")
