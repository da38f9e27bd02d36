"""``torchlasso compact``: take out of a finished run's model what makes no difference."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from torchlasso._core import files
from torchlasso.cli import options, screen
from torchlasso.compaction import compacted
from torchlasso.runs.finished import open_run


def compact(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    multiple_of: Annotated[
        int, typer.Option(help="Keep so many units of each kind that they make a multiple of this.")
    ] = 1,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what went and what stayed as JSON.")] = False,
) -> None:
    """Write the run's model without the units that make no difference, and say what went and why the others stayed.

    Example: torchlasso compact runs/a

    The outputs are the same: both models run side by side, in float64, before anything is written.
    """
    folder, experiment, model, cuts = open_run(run, options.allowed(by=allow_code))
    start = time.perf_counter()
    small, report, cut = compacted(model, experiment.example, multiple_of)
    seconds = time.perf_counter() - start
    folder.write_compact(small.state_dict(), [*cuts, cut.to_dict()])
    if as_json:
        print(files.as_json({**report.to_dict(), "seconds": seconds}), end="")
        return
    screen.console.print(str(report), soft_wrap=True)
    screen.say(f"\n{report.verdict} The outputs are the same; it took {seconds:.1f} s.")
    screen.say(f"{folder.compact}")
