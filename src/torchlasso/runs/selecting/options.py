"""The options of ``torchlasso select``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from torchlasso._core.specs import unknown
from torchlasso.data.labels import TASKS
from torchlasso.runs.declared import Option, refuse_large_numbers
from torchlasso.runs.records import NEWER


@dataclass(frozen=True)
class SelectOptions:
    """The options of ``torchlasso select``."""

    data: Annotated[str, Option("Table: a Parquet, CSV or NPZ file, a folder with one, or module:function.")]
    label: Annotated[str | None, Option("Label column: classes, or decimal numbers.")] = None
    time: Annotated[
        str | None, Option("Column of times, in the place of a label: of an event, or until which a row was observed.")
    ] = None
    event: Annotated[str | None, Option("Column of 1 where the event happened at its time, and 0 elsewhere.")] = None
    ignore: Annotated[tuple[str, ...], Option("Columns to ignore, separated by commas.")] = ()
    categories: Annotated[
        tuple[str, ...], Option("Columns of categories that are written as numbers, separated by commas.")
    ] = field(default=(), metadata=NEWER)
    task: Annotated[
        str | None, Option(f"What whole numbers as labels are: {' or '.join(TASKS)}; if not given, judged by them.")
    ] = field(default=None, metadata=NEWER)
    group: Annotated[
        str | None, Option("Column that names the animal or person of each row; its rows stay together in every split.")
    ] = None
    weight: Annotated[
        str | None,
        Option("Column of the weights of the rows, in all models and scores; rows of weight 0 are left out."),
    ] = None
    features: Annotated[
        int | None,
        Option("Number of features; without it or --fdr, the fewest within one standard error of the best."),
    ] = None
    fdr: Annotated[
        float | None, Option("Accepted share of false features, such as 0.1: their number follows, by stability.")
    ] = None
    hidden: Annotated[
        tuple[int, ...], Option("Widths of hidden layers, such as 64 or 64,32; without it, the model is linear.")
    ] = ()
    pairs: Annotated[int, Option("Pairs of halves of the rows, without a common row, to which models are fitted.")] = 25
    folds: Annotated[int, Option("Folds of the cross-validation.")] = 5
    seed: Annotated[int, Option("Seed of the splits and of networks.")] = 0

    def __post_init__(self) -> None:
        refuse_large_numbers(self)
        if self.features is not None and self.fdr is not None:
            raise ValueError("--features and --fdr exclude each other: give the number, or let it follow")
        if (self.time is None) != (self.event is None):
            given, missing = ("event", "time") if self.time is None else ("time", "event")
            raise ValueError(f"--{given} needs --{missing}: survival is a time and an event")
        if self.time is not None and self.label is not None:
            raise ValueError("--label and --time exclude each other: the times and events are the target")
        if self.task not in (None, *TASKS):
            raise unknown("task", str(self.task), TASKS)
        if self.time is not None and self.task is not None:
            raise ValueError("--task and --time exclude each other: the times and events are the target")
        for name, least in (("features", 1), ("pairs", 1), ("folds", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"--{name} must be at least {least}; got {value}")
        if self.fdr is not None and not 0 < self.fdr <= 1:
            raise ValueError(f"--fdr must be a share, above 0 and at most 1; got {self.fdr}")
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"--hidden must be widths of at least 1; got {','.join(map(str, self.hidden))}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be at least 0 and below 2^32; got {self.seed}")
