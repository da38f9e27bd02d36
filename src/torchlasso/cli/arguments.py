"""The options that several commands have: what to train, on what, and how."""

from __future__ import annotations

from typing import Annotated

import typer

from torchlasso import models, penalties
from torchlasso._core.functions import is_function_name
from torchlasso.runs.choices import BLOCKS, OPTIMIZERS, UNITS
from torchlasso.training.trainer import LOSSES, SCHEDULES

Out = Annotated[str, typer.Option(help="Folder of the run.")]
Data = Annotated[
    str | None,
    typer.Option(help="digits, hf:NAME, package.module:function, or a Parquet, CSV, NPZ or IDX file or folder."),
]
Label = Annotated[str | None, typer.Option(help="Label column of a table.")]
Ignore = Annotated[str, typer.Option(help="Columns of a table to leave out, separated by commas.")]
Validation = Annotated[float, typer.Option(help="Share of the training rows that is held out.")]
Model = Annotated[str, typer.Option(help=f"{', '.join(models.names())} or package.module:function.")]
LossName = Annotated[str | None, typer.Option(help=f"{', '.join(LOSSES)} or package.module:function.")]
PenaltyName = Annotated[str, typer.Option(help=f"{', '.join(penalties.registry())}; with options as in mcp:gamma=3.")]
Over = Annotated[str | None, typer.Option(help=f"{', '.join([UNITS, *BLOCKS])}; with options as in heads:n=4.")]
OptimizerName = Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)}; with options as in sgd:momentum=0.9.")]
Reweight = Annotated[
    float | None, typer.Option(help="θ, such as 0.05: λ of each weight times θ/(|w|+θ), for what is kept.")
]
Rate = Annotated[float, typer.Option(help="Learning rate at the start.")]
Schedule = Annotated[str, typer.Option(help=f"Of the rate: {', '.join(SCHEDULES)}.")]
BatchSize = Annotated[int, typer.Option(help="Rows per step, of all processes.")]
Seed = Annotated[int, typer.Option(help="Of the start, the order of rows and the validation rows.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, …")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
AllowCode = Annotated[
    list[str] | None,
    typer.Option(help="package.module:function that a file of the run may name and have run; may be given again."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON at the end, and all else to standard error.")
]


def allowed(*given: str | None, by: list[str] | None) -> frozenset[str]:
    """Return the functions that the user has named on this command line, by ``--allow-code`` or as an option's value.

    Raises:
        ValueError: ``--allow-code`` is something else than the name of a function.
    """
    for name in by or []:
        if not is_function_name(name):
            raise ValueError(f"--allow-code is the name of a function, package.module:function; got {name!r}")
    return frozenset(name for name in (*given, *(by or [])) if name is not None and is_function_name(name))
