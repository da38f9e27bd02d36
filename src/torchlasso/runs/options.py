"""The options of a run. Each is declared once, with its help, for the commands, ``config.json`` and the report page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

from torchlasso import models, penalties
from torchlasso._core.specs import parse_spec, unknown
from torchlasso.integrations.pretrained import PREFIX, Pretrained
from torchlasso.integrations.trackers import tracker_names, tracker_of
from torchlasso.optim.forms import FORMS
from torchlasso.penalties import check_strength
from torchlasso.runs.choices import BALANCED, BLOCKS, CLASS_WEIGHTS, OPTIMIZERS, check_augmentation
from torchlasso.runs.comparing_epochs import check_comparing_epochs
from torchlasso.runs.data_options import DataOptions
from torchlasso.runs.declared import NOTHING, TRAIN, Option, options_of, refuse_large_numbers
from torchlasso.runs.extension import Extension, check_extensions
from torchlasso.runs.model_blocks import INPUTS, OF_MODELS
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.quality import LOSS, MEASURES
from torchlasso.runs.records import NEWER
from torchlasso.training.augmentation import AUGMENTATIONS
from torchlasso.training.losses import LOSSES
from torchlasso.training.plan import FLOAT32, PRECISIONS, Plan
from torchlasso.training.schedules import SCHEDULES

DENSE, LOSS_TERM = "dense", "loss-term"
COMPARISONS = (DENSE, LOSS_TERM)
FIGURES = tuple(each.option for each in (LOSS, *MEASURES.values()))
COSTS = ("flops", "bytes")
TARGETS = ("sparsity", *COSTS, "features")
RECIPES = ("latent", "proximal", "words")  # see :mod:`torchlasso.runs.recipes`


def is_count_or_share(value: float | str) -> bool:
    """Return whether a value is a whole number above 0, or a share of all: a number between 0 and 1.

    >>> [is_count_or_share(value) for value in (5.0, 0.05, 1.5, 0.0, "few")]
    [True, True, False, False, False]
    """
    return isinstance(value, float | int) and (0 < value < 1 or (value >= 1 and value == int(value)))


def is_by_recipe(name: str) -> bool:
    """Return whether the recipe chooses the value of a field of :class:`Options` that is not given."""
    return any(each == name and option.by_recipe for each, _, option in options_of(Options, TRAIN))


@dataclass(frozen=True)
class Options(DataOptions):
    """The options of ``torchlasso train`` and ``torchlasso path``, as ``config.json`` stores them."""

    model: Annotated[str, Option(f"Model: {', '.join(models.names())}, {PREFIX}FOLDER or module:function.")] = "lenet-5"
    loss: Annotated[
        str | None, Option(f"Loss: {', '.join(LOSSES)} or module:function; if not given, the labels decide.")
    ] = None
    recipe: Annotated[
        str,
        Option(
            f"Recipe: {', '.join(RECIPES)}; values for the options without a default here. "
            "If not given, latent where there is a target (words for words of texts), else proximal.",
            by_recipe=True,
        ),
    ] = field(default="proximal", metadata=NEWER)
    lam: Annotated[
        float,
        Option(
            "λ ≥ 0: in the objective, mean loss + λ·penalty, or where the search for a target starts.",
            on_path=Option("λ at which the search starts.", by_recipe=True),
            by_recipe=True,
        ),
    ] = 1e-4
    penalty: Annotated[str, Option(f"Penalty: {', '.join(penalties.registry())}; options as in mcp:gamma=3.")] = "l1"
    over: Annotated[
        str | None,
        Option(f"Groups that the penalty acts on: {', '.join([*OF_MODELS, *BLOCKS])}; options as in heads:n=4."),
    ] = None
    optimizer: Annotated[str, Option(f"Optimizer: {', '.join(OPTIMIZERS)}; options as in sgd:momentum=0.9.")] = "adam"
    form: Annotated[
        str,
        Option(
            f"Form of the optimizer: {', '.join(FORMS)} (latent: dual averaging, λ is relative to the gradients).",
            by_recipe=True,
        ),
    ] = field(default="proximal", metadata=NEWER)
    lr: Annotated[float, Option("Learning rate at its highest.", by_recipe=True)] = 1e-3
    schedule: Annotated[str, Option(f"Schedule of the learning rate: {', '.join(SCHEDULES)}.", by_recipe=True)] = (
        "cosine"
    )
    warmup: Annotated[
        float, Option("Share of the steps over which the learning rate rises from 0.", by_recipe=True)
    ] = field(default=0.0, metadata=NEWER)
    hold: Annotated[
        float | None,
        Option(
            "Share of the steps at the end with frozen zeros and no penalty (0: none); wsd decays over it.",
            by_recipe=True,
        ),
    ] = None
    input_dropout: Annotated[
        float,
        Option(
            "Probability with which an input is set to the background, or a word left out, in a training step: 0.2."
        ),
    ] = field(default=0.0, metadata=NEWER)
    label_smoothing: Annotated[
        float, Option("Share of each label that is spread evenly over all classes in training, such as 0.1.")
    ] = field(default=0.0, metadata=NEWER)
    class_weight: Annotated[
        str, Option("Weights of the classes in the loss of training: none, or balanced, inversely to their rows.")
    ] = field(default="none", metadata=NEWER)
    augment: Annotated[
        tuple[str, ...],
        Option(f"Changes to images in training, separated by commas: {', '.join(AUGMENTATIONS)}, or module:function."),
    ] = field(default=(), metadata=NEWER)
    epochs: Annotated[
        int,
        Option(
            "Passes over the training rows.",
            on_path=Option("Passes over the training rows for the dense model.", default=10),
        ),
    ] = 20
    keep_best: Annotated[
        str | None,
        Option(
            f"Keep the epoch that is best by this figure on the validation rows: {', '.join(FIGURES)}. "
            "Only epochs that meet the target, or end in the hold, count.",
            TRAIN,
        ),
    ] = None
    patience: Annotated[
        int | None, Option("Stop after so many epochs without a better one, by the figure of --keep-best.", TRAIN)
    ] = None
    batch_size: Annotated[int, Option("Rows per step, over all processes.")] = 128
    accumulate: Annotated[
        int, Option("Parts in which the rows of a step are computed one after the other, to save memory.")
    ] = field(default=1, metadata=NEWER)
    precision: Annotated[str, Option(f"Precision of the forward and backward pass: {', '.join(PRECISIONS)}.")] = field(
        default=FLOAT32, metadata=NEWER
    )
    clip: Annotated[
        float | None, Option("Largest norm of the gradient of a step, such as 1; a longer one is scaled to it.")
    ] = None
    save_every: Annotated[
        int | None,
        Option("Steps after which the state is saved within an epoch too, for a resume from there.", TRAIN),
    ] = None
    seed: Annotated[int, Option("Seed of the initial weights, the order of rows and the validation rows.")] = 0
    device: Annotated[str, Option("Device: auto, cpu, cuda, …")] = "auto"
    compare: Annotated[
        tuple[str, ...],
        Option(f"Also train these for comparison: {', '.join(COMPARISONS)}, or both, separated by a comma.", TRAIN),
    ] = ()
    flops: Annotated[
        float | None,
        Option("Target for the FLOPs, a share or a number; with --over units, filters or rows.", TRAIN),
    ] = None
    bytes: Annotated[
        float | None, Option("Target for the size, a share or a number; with --over units, filters or rows.", TRAIN)
    ] = None
    features: Annotated[
        float | str | None,
        Option("Target for the inputs that are read, such as words of texts: a number, or a share such as 5%.", TRAIN),
    ] = None
    reweight: Annotated[
        float | None,
        Option(
            "Multiply λ of each weight by θ/(|w|+θ), to shrink large weights less; θ such as 0.05, or 0 for none.",
            by_recipe=True,
        ),
    ] = None
    refit: Annotated[
        int | None,
        Option("Then train this many epochs with frozen zeros and no penalty; keep the better model.", TRAIN),
    ] = None
    teacher: Annotated[
        str | None,
        Option(
            "Also learn from the finished run in this folder, or, if dense, from a dense model trained first.", TRAIN
        ),
    ] = None
    shrink: Annotated[
        bool, Option("Remove dead units during training when this saves time; with --over units.", TRAIN)
    ] = False
    log: Annotated[
        tuple[str, ...],
        Option(
            f"Also log every epoch to these, separated by commas: {', '.join(tracker_names())}; or none.",
            on_path=Option(
                f"Also log every point to these, separated by commas: {', '.join(tracker_names())}; or none."
            ),
        ),
    ] = field(default=(), metadata=NEWER)
    extensions: tuple[Extension, ...] = field(default=(), metadata=NEWER)
    pretrained: Pretrained | None = None
    path: PathOptions | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_large_numbers(self)
        check_strength(self.lam, "--lam")
        targets = [f"--{name}" for name in TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise ValueError(f"{' and '.join(targets)} exclude each other: λ can meet one target")
        if targets and not self.lam:
            raise ValueError(f"{targets[0]} needs a --lam above 0: the search for λ starts there")
        if (
            (self.flops is not None or self.bytes is not None)
            and self.over is not None
            and parse_spec(self.over)[0] == INPUTS
        ):
            raise ValueError(f"{targets[0]} does not suit --over inputs: without a feature, no layer becomes smaller")
        if self.features is not None and self.over is None:
            raise ValueError("--features counts inputs, and the penalty acts on single weights; give --over inputs")
        if self.features is not None and not is_count_or_share(self.features):
            raise ValueError(f"--features must be a whole number of at least 1, or a share; got {self.features}")
        if self.teacher == "":
            raise ValueError("--teacher must be the folder of a run, or dense; got an empty text")
        if self.path is not None and not self.path.lams and not self.lam:
            raise ValueError("--lam must be above 0, since the search for λ starts there; or give --lams")
        if self.path is not None and not self.path.folds and self.validation == 0:
            raise ValueError("choosing a point needs validation rows: give --validation above 0, or --folds")
        if self.refit is not None and self.refit < 1:
            raise ValueError(f"--refit must be a number of epochs, at least 1; got {self.refit}")
        if self.refit is not None and self.validation == 0:
            raise ValueError("--refit needs validation rows to keep the better model: give --validation above 0")
        check_comparing_epochs(self, targets)
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr must be a finite number above 0; got {self.lr!r}")
        if self.time is not None and self.loss not in (None, "cox"):
            raise ValueError(f"--time and --event have the loss cox; got --loss {self.loss}")
        for name in ("epochs", "batch_size", "accumulate", "save_every"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be a whole number, at least 1; got {count}")
        if self.time is not None and self.accumulate > 1:
            raise ValueError("--accumulate does not go with --time: all rows of a step are at risk together")
        if self.clip is not None and not 0 < self.clip < float("inf"):
            raise ValueError(f"--clip must be a finite number above 0; got {self.clip}")
        if self.form not in FORMS:
            raise unknown("form", self.form, FORMS)
        if self.hold is not None and not 0 <= self.hold < 1:
            raise ValueError(f"--hold must be a share of the steps, at least 0 and below 1; got {self.hold!r}")
        for name in ("input_dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                flag = f"--{name.replace('_', '-')}"
                raise ValueError(f"{flag} must be at least 0 and below 1; got {getattr(self, name)!r}")
        if self.class_weight not in CLASS_WEIGHTS:
            raise unknown("class weight", self.class_weight, CLASS_WEIGHTS)
        for name in self.augment:
            check_augmentation(name)
        if self.form == "latent" and LOSS_TERM in self.compare:
            raise ValueError("--compare loss-term needs --form proximal: no loss term has the λ of the latent form")
        _ = self.plan  # raises an error if the values do not make a plan
        if NOTHING in self.log and len(self.log) > 1:
            raise ValueError(f"--log {NOTHING} stands alone; got {','.join(self.log)}")
        for name in self.trackers:
            _ = tracker_of(name)  # raises an error if there is none
        check_extensions(self.extensions)
        for name in self.compare:
            if name not in COMPARISONS:
                raise unknown("comparison", name, COMPARISONS)

    @property
    def target(self) -> float | str | None:
        """The target that λ is to meet, if there is one."""
        return next((value for name in TARGETS if (value := getattr(self, name)) is not None), None)

    @property
    def comparisons(self) -> tuple[str, ...]:
        """The comparison runs, starting with the dense model if it is the teacher."""
        return self.compare if self.teacher != DENSE else (DENSE, *(name for name in self.compare if name != DENSE))

    @property
    def regularisation(self) -> tuple[str, ...]:
        """The regularisation beside the penalty, in words."""
        words = {
            f"input dropout {self.input_dropout:g}": self.input_dropout,
            f"label smoothing {self.label_smoothing:g}": self.label_smoothing,
            "balanced class weights": self.class_weight == BALANCED,
            f"row weights {self.weight}": self.weight,
            f"augmentation {','.join(self.augment)}": self.augment,
        }
        return tuple(text for text, given in words.items() if given)

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers, each once."""
        return tuple(dict.fromkeys(name for name in self.log if name != NOTHING))

    @property
    def plan(self) -> Plan:
        """The length and the order of training, with the epochs that were added to it; the warm-up keeps its length."""
        epochs = self.extensions[-1].total if self.extensions else self.epochs
        plan = Plan(
            epochs,
            self.batch_size,
            self.seed,
            self.schedule,
            self.warmup * min(1.0, self.epochs / epochs) if self.extensions else self.warmup,
            precision=self.precision,
            clip=self.clip,
            parts=self.accumulate,
            save_every=self.save_every,
        )
        return replace(plan, decay=self.hold) if self.hold else plan
