"""``torchlasso compact``: remove the units without effect from a finished run's model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Literal

import torch
import typer

from torchlasso._core import files
from torchlasso._core.arguments import check_whole
from torchlasso._core.memory import need_memory
from torchlasso.cli import options, screen
from torchlasso.compaction import compacted
from torchlasso.compaction.report import Totals
from torchlasso.runs.finished import open_run
from torchlasso.runs.words import with_words, without_unread_words


def compact(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    multiple_of: Annotated[
        str, typer.Option(help="Keep numbers of units that are multiples of this; auto: of what is fastest here.")
    ] = "1",
    batch: Annotated[int, typer.Option(help="Rows of the batches that auto measures on this machine.")] = 64,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the removed and the kept units as JSON.")] = False,
) -> None:
    """Remove the units that have no effect from a run's model, and report why the others stay.

    Example: torchlasso compact runs/a

    The outputs stay the same: both models run side by side, in float64, before a file is written.
    """
    multiple = _multiple(multiple_of)
    check_whole("--batch", batch)
    folder, experiment, model, cuts = open_run(run, options.allowed(by=allow_code))
    start = time.perf_counter()
    found = without_unread_words(model, experiment)
    read, kept = (model, None) if found is None else found
    example = experiment.example if kept is None else with_words(experiment, kept).example
    if multiple == "auto":
        need_memory(example.nbytes * batch, f"a batch of {batch:,} rows")
        example = example[torch.arange(batch, device=example.device) % len(example)]
    small, report, cut = compacted(read, example, multiple)
    if kept is not None:
        report = replace(report, before=Totals.of(model, experiment.example))
    seconds = time.perf_counter() - start
    folder.write_compact(small.state_dict(), [*cuts, cut.to_dict()], None if kept is None else kept.tolist())
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
