"""``torchlasso compact``: remove the units without effect from a finished run's model."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from torchlasso._core import files
from torchlasso._core.arguments import check_whole
from torchlasso.cli import options, screen
from torchlasso.runs.compacting import BATCH, without_dead_parts
from torchlasso.runs.finished import open_run


def compact(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    multiple_of: Annotated[
        str, typer.Option(help="Keep numbers of units that are multiples of this; auto: of what is fastest here.")
    ] = "1",
    batch: Annotated[
        int | None,
        typer.Option(help=f"Rows of the batches that --multiple-of auto measures here; {BATCH} if not given."),
    ] = None,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the removed and the kept units as JSON.")] = False,
) -> None:
    """Remove the units that have no effect from a run's model, and report why the others stay.

    Example: torchlasso compact runs/a

    The outputs stay the same: both models run side by side, in float64, before a file is written.
    """
    multiple = _multiple(multiple_of)
    if batch is not None:
        check_whole("--batch", batch)
        if multiple != "auto":
            raise ValueError("--batch is for --multiple-of auto, which measures: give both, or leave it out")
    folder, experiment, model, cuts = open_run(run, options.allowed(by=allow_code))
    start = time.perf_counter()
    small = without_dead_parts(model, experiment, multiple, batch or BATCH)
    report, kept = small.report, small.words
    seconds = time.perf_counter() - start
    folder.write_compact(
        small.model.state_dict(), [*cuts, small.cut.to_dict()], None if kept is None else kept.tolist()
    )
    words = {} if kept is None else {"words": {"before": experiment.inputs.shape[1] - 1, "after": len(kept) - 1}}
    if as_json:
        print(files.as_json({**report.to_dict(), **words, "seconds": seconds}), end="")
        return
    if kept is not None:
        screen.say(
            f"{len(kept) - 1:,} of {experiment.inputs.shape[1] - 1:,} words are read; the others leave the table and "
            "the tokenizer.\n"
        )
    screen.console.print(str(report), soft_wrap=True)
    screen.say(f"\n{report.verdict} The outputs are the same; it took {seconds:.1f} s.")
    screen.say(f"{folder.compact}")


def _multiple(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--multiple-of must be a whole number of at least 1, or auto; got {text!r}")
    return int(text)
