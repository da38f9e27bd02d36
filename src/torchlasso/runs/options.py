"""The options of a run: the one declaration of each, with its help, for the commands, ``config.json`` and the page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

from torchlasso import models, penalties
from torchlasso._core.specs import unknown
from torchlasso.path import RULES, Grid
from torchlasso.penalties import check_strength
from torchlasso.runs.choices import BLOCKS, OPTIMIZERS, UNITS
from torchlasso.runs.records import LARGEST
from torchlasso.training.trainer import LOSSES, SCHEDULES, Plan

DENSE, LOSS_TERM = "dense", "loss-term"
COMPARISONS = (DENSE, LOSS_TERM)
TARGETS = ("sparsity", "flops", "bytes")
TRAIN, PATH = "train", "path"


@dataclass(frozen=True)
class Option:
    """A field of a dataclass as an option of a command.

    Attributes:
        help: its line in ``--help``.
        only: the command that has it; None for all.
        on_path: the option as ``torchlasso path`` has it, where that is another line.
        default: in the place of the field's own default.
    """

    help: str
    only: str | None = None
    on_path: Option | None = None
    default: Any = None


def options_of(cls: type, command: str) -> Iterator[tuple[str, Any, Option]]:
    """Yield the name, the type and the option of each field that a command has, in order."""
    hints = get_type_hints(cls, include_extras=True)
    for field in fields(cls):
        kind, *extra = get_args(hints[field.name])
        option = next((each for each in extra if isinstance(each, Option)), None)
        if option is None or option.only not in (None, command):
            continue
        yield field.name, kind, (option.on_path or option) if command == PATH else option


def _check_whole(options: Any) -> None:
    """Refuse whole numbers that no file of a run may hold."""
    for field in fields(options):
        value = getattr(options, field.name)
        if type(value) is int and abs(value) > LARGEST:
            raise ValueError(f"--{field.name.replace('_', '-')} must be below 2^63; got {value}")


@dataclass(frozen=True)
class PathOptions:
    """The options that ``torchlasso path`` has besides."""

    points: Annotated[int, Option("How many, the dense model included.")] = 20
    sparsest: Annotated[float, Option("Share of zeros of the last point.")] = 0.995
    densest: Annotated[float, Option("Share of zeros of the first sparse point.")] = 0.5
    lams: Annotated[tuple[float, ...], Option("First and last λ, as in 1e-6,1e-3: points by λ, not by density.")] = ()
    epochs_each: Annotated[int, Option("Passes over the training rows for each point but the dense one.")] = 2
    lr_growth: Annotated[
        float, Option("Learning rate of the last point, relative to that of the dense model; it grows on the way.")
    ] = 1.0
    collapse: Annotated[float, Option("Stop where the error is this share of the way from the best to guessing.")] = (
        0.25
    )
    choose: Annotated[str, Option(f"Which point is the model: {', '.join(RULES)} (of the best: the sparsest).")] = (
        "one-se"
    )
    tolerance: Annotated[float, Option("For within: how much more validation error, as a fraction.")] = 0.005
    folds: Annotated[int | None, Option("Choose by cross-validation with so many folds.")] = None

    def __post_init__(self) -> None:
        _check_whole(self)
        _ = self.grid  # refuses what no grid can be made of
        if len(self.lams) not in (0, 2):
            raise ValueError(f"--lams are two numbers, the first and the last λ, as in 1e-6,1e-3; got {self.lams}")
        if self.epochs_each < 1:
            raise ValueError(f"--epochs-each must be at least 1; got {self.epochs_each}")
        if not 0 < self.lr_growth < math.inf:
            raise ValueError(f"--lr-growth must be a finite number above 0; got {self.lr_growth}")
        if not 0 < self.collapse <= 1:
            raise ValueError(f"--collapse is a share, above 0 and at most 1; got {self.collapse}")
        if self.choose not in RULES:
            raise unknown("rule", self.choose, RULES)
        if not 0 <= self.tolerance < 1:
            raise ValueError(f"--tolerance must be at least 0 and below 1; got {self.tolerance}")
        if self.folds is not None and self.folds < 2:
            raise ValueError(f"--folds must be at least 2; got {self.folds}")

    @property
    def grid(self) -> Grid:
        """The grid of the path."""
        lams = (self.lams[0], self.lams[1]) if len(self.lams) == 2 else None
        return Grid(self.points, self.sparsest, self.densest, lams)


@dataclass(frozen=True)
class Options:
    """The options of ``torchlasso train``, and of ``torchlasso path``, as ``config.json`` keeps them."""

    data: Annotated[
        str, Option("digits, hf:NAME, package.module:function, or a Parquet, CSV, NPZ or IDX file or folder.")
    ]
    label: Annotated[str | None, Option("Label column of a table.")] = None
    ignore: Annotated[tuple[str, ...], Option("Columns of a table to leave out, separated by commas.")] = ()
    validation: Annotated[float, Option("Share of the training rows that is held out.")] = 0.1
    model: Annotated[str, Option(f"{', '.join(models.names())} or package.module:function.")] = "lenet-5"
    loss: Annotated[str | None, Option(f"{', '.join(LOSSES)} or package.module:function.")] = None
    lam: Annotated[
        float,
        Option("λ ≥ 0: the problem is mean loss + λ·penalty.", on_path=Option("Where the search for λ starts.")),
    ] = 1e-4
    penalty: Annotated[str, Option(f"{', '.join(penalties.registry())}; with options as in mcp:gamma=3.")] = "l1"
    over: Annotated[str | None, Option(f"{', '.join([UNITS, *BLOCKS])}; with options as in heads:n=4.")] = None
    optimizer: Annotated[str, Option(f"{', '.join(OPTIMIZERS)}; with options as in sgd:momentum=0.9.")] = "adam"
    lr: Annotated[float, Option("Learning rate at the start.")] = 1e-3
    schedule: Annotated[str, Option(f"Of the rate: {', '.join(SCHEDULES)}.")] = "cosine"
    epochs: Annotated[
        int,
        Option(
            "Passes over the training rows.",
            on_path=Option("Passes over the training rows for the dense model.", default=10),
        ),
    ] = 20
    batch_size: Annotated[int, Option("Rows per step, of all processes.")] = 128
    seed: Annotated[int, Option("Of the start, the order of rows and the validation rows.")] = 0
    device: Annotated[str, Option("auto, cpu, cuda, …")] = "auto"
    compare: Annotated[
        tuple[str, ...],
        Option(f"Also train these, the same epochs: {', '.join(COMPARISONS)}, or both by a comma.", TRAIN),
    ] = ()
    sparsity: Annotated[
        float | None, Option("Share of zeros to end with, such as 0.95: λ is found, from --lam on.", TRAIN)
    ] = None
    flops: Annotated[
        float | None,
        Option("Operations to end with, a share or a number; with --over units, filters or rows.", TRAIN),
    ] = None
    bytes: Annotated[float | None, Option("Size to end with, a share or a number; likewise.", TRAIN)] = None
    reweight: Annotated[
        float | None, Option("θ, such as 0.05: λ of each weight times θ/(|w|+θ), for what is kept.")
    ] = None
    refit: Annotated[
        int | None, Option("Epochs without a penalty on what is left; the better model is kept.", TRAIN)
    ] = None
    teacher: Annotated[
        str | None, Option("Folder of a finished run to learn from as well; or dense: train that first.", TRAIN)
    ] = None
    shrink: Annotated[
        bool, Option("Take out what has died while training, when it saves time; --over units.", TRAIN)
    ] = False
    path: PathOptions | None = None

    def __post_init__(self) -> None:
        _check_whole(self)
        check_strength(self.lam, "--lam")
        targets = [f"--{name}" for name in TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise ValueError(f"{' and '.join(targets)} exclude each other: λ can meet one target")
        if targets and not self.lam:
            raise ValueError(f"{targets[0]} needs a --lam above 0, from where the search for λ starts")
        if self.teacher == "":
            raise ValueError("--teacher is empty; it names the folder of a run, or dense")
        if self.path is not None and not self.path.lams and not self.lam:
            raise ValueError("--lam must be above 0, from where the search for λ starts, unless there are --lams")
        if self.path is not None and not self.path.folds and not self.validation:
            raise ValueError("a point is chosen by validation rows: give --validation above 0, or --folds")
        if self.refit is not None and self.refit < 1:
            raise ValueError(f"--refit is a number of epochs, at least 1; got {self.refit}")
        if self.refit is not None and not self.validation:
            raise ValueError("--refit keeps the better model by validation rows; give --validation above 0")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr must be a finite number above 0; got {self.lr!r}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"--validation must be at least 0 and below 1; got {self.validation!r}")
        _ = self.plan  # refuses what no plan can be made of
        for name in self.compare:
            if name not in COMPARISONS:
                raise unknown("comparison", name, COMPARISONS)

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The comparison runs; the dense model first if it is the teacher."""
        return self.compare if self.teacher != DENSE else (DENSE, *(name for name in self.compare if name != DENSE))

    @property
    def plan(self) -> Plan:
        """The length and the order of training."""
        return Plan(self.epochs, self.batch_size, self.seed, self.schedule)
