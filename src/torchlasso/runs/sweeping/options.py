"""The options of ``torchlasso sweep``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from torchlasso._core.specs import unknown
from torchlasso.path import RULES
from torchlasso.runs.declared import Option, refuse_large_numbers
from torchlasso.runs.sweeping.axes import MOST, SweepAxis, parse_axis

GRID, RANDOM, TPE = "grid", "random", "tpe"
SEARCHES = (GRID, RANDOM, TPE)
TRIALS = 20


@dataclass(frozen=True)
class SweepOptions:
    """The options of ``torchlasso sweep`` beside those of a training and the axes."""

    search: Annotated[
        str | None,
        Option(f"Search: {', '.join(SEARCHES)} (of Optuna); if not given, grid for values and tpe for ranges."),
    ] = None
    trials: Annotated[int | None, Option(f"Number of trials of --search random or tpe: {TRIALS} if not given.")] = None
    round: Annotated[int, Option("Trials that --search tpe suggests at once, before it learns from them.")] = 10
    keep_all: Annotated[bool, Option("Train all trials to their ends, even bad ones.")] = False
    choose: Annotated[
        str, Option(f"Trial to choose by the validation rows: {', '.join(RULES)}, as in torchlasso path.")
    ] = "one-se"
    tolerance: Annotated[float, Option("For --choose within: allowed extra validation error, as a fraction.")] = 0.005
    vary: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        refuse_large_numbers(self)
        if self.search is not None and self.search not in SEARCHES:
            raise unknown("search", self.search, SEARCHES)
        if not self.vary:
            raise ValueError("a sweep needs an option with several values: give --vary, as in --vary lr=1e-3,3e-3")
        names = [axis.name for axis in self.axes]
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"--vary {twice} is given twice; give all of its values at once")
        if self.kind == GRID:
            if ranges := [axis.name for axis in self.axes if axis.ends is not None]:
                raise ValueError(f"--search grid needs values; {ranges[0]} has a range")
            if self.trials is not None:
                raise ValueError("--trials goes with --search random or tpe; a grid trains all combinations")
            if (count := math.prod(len(axis.values) for axis in self.axes)) > MOST:
                raise ValueError(f"a grid has at most {MOST:,} combinations; got {count:,}")
        for name in ("trials", "round"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"--{name} must be at least 1; got {value}")
        if self.choose not in RULES:
            raise unknown("rule", self.choose, RULES)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be at least 0 and below 1; got {self.tolerance}")

    @property
    def axes(self) -> list[SweepAxis]:
        """The axes."""
        return [parse_axis(text) for text in self.vary]

    @property
    def kind(self) -> str:
        """The search."""
        if self.search is not None:
            return self.search
        return TPE if any(axis.ends is not None for axis in self.axes) else GRID
