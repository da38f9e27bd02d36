"""The additional options of ``torchlasso path``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

from torchlasso._core.specs import unknown
from torchlasso.path import RULES, Grid
from torchlasso.runs.declared import Option, refuse_large_numbers
from torchlasso.runs.records import NEWER

WARM, COLD = "warm", "cold"
EPOCHS_EACH, STEPS_EACH = 2, 200  # the training of a point of a path: as many epochs, and at least as many steps


@dataclass(frozen=True)
class PathOptions:
    """The additional options of ``torchlasso path``."""

    points: Annotated[int, Option("Number of points, including the dense model.")] = 20
    sparsest: Annotated[float, Option("Share of zeros of the last point.")] = 0.995
    densest: Annotated[float, Option("Share of zeros of the first sparse point.")] = 0.5
    lams: Annotated[
        tuple[float, ...], Option("First and last λ, as in 1e-6,1e-3: space the points by λ instead of by density.")
    ] = ()
    epochs_each: Annotated[
        int | None,
        Option(
            f"Passes over the training rows for each point after the dense one; if not given, {EPOCHS_EACH}, "
            f"or as many as make {STEPS_EACH} steps."
        ),
    ] = None
    lr_growth: Annotated[
        float, Option("Learning rate at the last point, as a multiple of --lr; it grows along the path.")
    ] = 1.0
    start: Annotated[
        str,
        Option(f"Weights that a point starts from: {WARM}, those of the point before, or {COLD}, the initial ones."),
    ] = field(default=WARM, metadata=NEWER)
    collapse: Annotated[
        float, Option("Stop when the error is this share of the way from the best one to guessing.")
    ] = 0.25
    choose: Annotated[
        str, Option(f"Point to keep as the model: {', '.join(RULES)}; the last two keep the sparsest near the best.")
    ] = "one-se"
    tolerance: Annotated[float, Option("For --choose within: allowed extra validation error, as a fraction.")] = 0.005
    folds: Annotated[int | None, Option("Choose by cross-validation with this many folds.")] = None

    def __post_init__(self) -> None:
        refuse_large_numbers(self)
        _ = self.grid  # raises an error if the values do not make a grid
        if len(self.lams) not in (0, 2):
            raise ValueError(f"--lams must be two numbers, the first and the last λ, as in 1e-6,1e-3; got {self.lams}")
        if self.epochs_each is not None and self.epochs_each < 1:
            raise ValueError(f"--epochs-each must be at least 1; got {self.epochs_each}")
        if self.start not in (WARM, COLD):
            raise unknown("start", self.start, (WARM, COLD))
        if self.start == COLD and self.epochs_each is not None:
            raise ValueError(f"--epochs-each does not go with --start {COLD}: every point is trained for --epochs")
        if not 0 < self.lr_growth < math.inf:
            raise ValueError(f"--lr-growth must be a finite number above 0; got {self.lr_growth}")
        if not 0 < self.collapse <= 1:
            raise ValueError(f"--collapse must be a share, above 0 and at most 1; got {self.collapse}")
        if self.choose not in RULES:
            raise unknown("rule", self.choose, RULES)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be at least 0 and below 1; got {self.tolerance}")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"--folds must be at least 2; got {self.folds}")

    @property
    def trainings(self) -> int:
        """The number of trainings that do not depend on each other."""
        return (1 + (self.folds or 0)) * (self.points if self.start == COLD else 1)

    @property
    def grid(self) -> Grid:
        """The grid of the path."""
        lams = (self.lams[0], self.lams[1]) if len(self.lams) == 2 else None
        return Grid(self.points, self.sparsest, self.densest, lams)
