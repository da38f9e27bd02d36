"""An experiment: what the options of ``train`` say, and the data, the model and the optimizer that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import torchlasso
from torchlasso import data, models
from torchlasso.cli import choices
from torchlasso.data.records import order_like, widen
from torchlasso.names import is_function_name, parse_spec, unknown
from torchlasso.optim import proximal
from torchlasso.penalties import check_strength
from torchlasso.selection import Group, param_groups, penalty
from torchlasso.training import Loss, Plan, Trainer

OURS, DENSE, LOSS_TERM = "torchlasso", "dense", "loss-term"
COMPARISONS = (DENSE, LOSS_TERM)


@dataclass(frozen=True)
class Options:
    """The options of ``torchlasso train``, as ``config.json`` keeps them."""

    data: str
    label: str | None = None
    ignore: tuple[str, ...] = ()
    validation: float = 0.1
    model: str = "lenet-5"
    loss: str | None = None
    lam: float = 1e-4
    penalty: str = "l1"
    over: str | None = None
    optimizer: str = "adam"
    lr: float = 1e-3
    schedule: str = "cosine"
    epochs: int = 20
    batch_size: int = 128
    seed: int = 0
    device: str = "auto"
    compare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_strength(self.lam, "--lam")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"--lr must be a finite number above 0; got {self.lr!r}")
        if not 0 <= self.validation < 1:
            raise ValueError(f"--validation must be at least 0 and below 1; got {self.validation!r}")
        _ = self.plan  # refuses what no plan can be made of
        for name in self.compare:
            if name not in COMPARISONS:
                raise unknown("comparison", name, COMPARISONS)

    @property
    def plan(self) -> Plan:
        """How long and in what order to train."""
        return Plan(self.epochs, self.batch_size, self.seed, self.schedule)


@dataclass(frozen=True)
class Inputs:
    """What a trained model expects of its inputs, and what its outputs mean."""

    shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    standardizer: data.Standardizer

    def prepare(self, part: data.Part, origin: str) -> Tensor:
        """Rows as the model wants them: columns in order, as many channels, standardised.

        Raises:
            ValueError: the rows are of another shape or have other columns.
        """
        if self.features:
            part = order_like(part, self.features, origin)
        x = widen(part.x, self.shape[0])
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"{origin}: its rows are of shape {tuple(x.shape[1:])}; the model wants {self.shape}")
        return self.standardizer(x)


@dataclass(frozen=True)
class Experiment:
    """Options with what has to be known to use the trained model later: what ``config.json`` keeps."""

    options: Options
    inputs: Inputs
    versions: dict[str, str] = field(
        default_factory=lambda: {"torchlasso": torchlasso.__version__, "torch": torch.__version__}
    )

    @property
    def loss(self) -> Loss:
        """The loss that was asked for, or that the targets call for."""
        return choices.loss(self.options.loss, bool(self.inputs.classes))

    def build_model(self) -> nn.Module:
        """A new model, its random start given by the seed."""
        text = self.options.model
        name, model_options = (text, {}) if is_function_name(text) else parse_spec(text)
        torch.manual_seed(self.options.seed)
        model = models.build(name, self.inputs.shape, self.inputs.outputs, **model_options)
        return model.to(choices.device(self.options.device))

    def groups(self, model: nn.Module) -> list[Group]:
        """The parameter groups of ``model`` under the options' penalty."""
        return param_groups(model, choices.penalty(self.options.penalty, self.options.over), lam=self.options.lam)

    def trainer(self, variant: str, model: nn.Module, rows: tuple[Tensor, Tensor]) -> tuple[Trainer, list[Group]]:
        """What trains ``model``: by a proximal optimizer, with the plain loss term, or without a penalty."""
        base, extra = choices.optimizer(self.options.optimizer)
        groups = self.groups(model)
        if variant == OURS:
            optimizer: torch.optim.Optimizer = proximal(base)(groups, lr=self.options.lr, **extra)
        else:
            plain = [{"params": group["params"]} for group in groups]
            optimizer = base(plain, lr=self.options.lr, **extra)  # type: ignore[call-arg]
        term = (lambda: penalty(groups)) if variant == LOSS_TERM else None
        return Trainer(model, optimizer, self.loss, rows, self.options.plan, term), groups


@dataclass(frozen=True)
class Rows:
    """The rows of an experiment, standardised and on its device."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def read(options: Options) -> tuple[Inputs, Rows]:
    """Read the data of the options and split off the validation rows."""
    dataset = data.load(options.data, label=options.label, ignore=options.ignore)
    kept, held = data.holdout(dataset.y, options.validation, options.seed)
    if options.validation and not len(held):
        raise ValueError(f"{options.data}: too few rows to set {options.validation:g} of them apart for validation")
    inputs = Inputs(
        shape=dataset.input_shape,
        outputs=dataset.outputs,
        classes=dataset.classes,
        features=dataset.features,
        standardizer=data.Standardizer.fit(dataset.x[kept]),
    )
    device = choices.device(options.device)
    x, test_x = (inputs.standardizer(part).to(device) for part in (dataset.x, dataset.test_x))
    y, test_y = dataset.y.to(device), dataset.test_y.to(device)
    return inputs, Rows((x[kept], y[kept]), (x[held], y[held]), (test_x, test_y))
