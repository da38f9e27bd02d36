"""Model cards: all that using a model takes, in a run's configuration and beside every exported model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import torchlasso
from torchlasso._core.functions import need_consent
from torchlasso.export import Exported, read_onnx, read_pt2
from torchlasso.runs import choices
from torchlasso.runs.experiment import Experiment, InputSpec
from torchlasso.runs.finished import open_run
from torchlasso.runs.records import parse_record
from torchlasso.training.trainer import Loss

READERS: dict[str, Callable[[str], Exported]] = {".onnx": read_onnx, ".pt2": read_pt2}


@dataclass(frozen=True)
class Card:
    """A model card: all that using a model takes.

    Attributes:
        model: its name.
        inputs: how rows are prepared, and what outputs mean.
        loss, label, ignore: as in the options that it was trained with.
        torchlasso: the version that wrote it.
    """

    model: str
    inputs: InputSpec
    loss_name: str | None = None
    label: str | None = None
    ignore: tuple[str, ...] = ()
    torchlasso: str = field(default=torchlasso.__version__)

    @classmethod
    def of(cls, experiment: Experiment) -> Card:
        """Make the card of an experiment's model."""
        options = experiment.options
        return cls(options.model, experiment.inputs, options.loss, options.label, options.ignore)

    def to_dict(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return asdict(self)

    @property
    def loss(self) -> Loss:
        """The loss that the model was trained with."""
        return choices.parse_loss(self.loss_name, bool(self.inputs.classes))


class _Described(nn.Module):
    """An exported model, whose outputs are checked against its card: a file may say one thing and do another."""

    def __init__(self, model: nn.Module, outputs: int) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(x)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != (len(x), self.outputs):
            shape = f"the shape {tuple(found.shape)}" if isinstance(found, Tensor) else "several parts"
            raise ValueError(f"the exported model's outputs have {shape}; its card says {(len(x), self.outputs)}")
        return found


def open_model(path: str, allowed: Collection[str] = ()) -> tuple[Card, nn.Module]:
    """Open a model to be used: the one of a finished run's folder, or an exported one.

    Args:
        path: of the folder or the file.
        allowed: functions that it may name, ``package.module:function``; none of the others is run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no finished run or no model that was exported by torchlasso, it is damaged, or it names a
            function that is not allowed.
    """
    reader = READERS.get(Path(path).suffix.lower())
    if reader is not None and not Path(path).is_dir():
        exported = reader(path)
        if not exported.metadata:
            raise ValueError(f"{path} was not written by torchlasso export: it does not say what its inputs are")
        card = parse_record(Card, exported.metadata, path)
        need_consent(Path(path), [card.loss_name], allowed)
        return card, _Described(exported, card.inputs.outputs)
    if Path(path).is_file():
        raise ValueError(f"{path} is a file; what can be run is the folder of a run, or a file {' or '.join(READERS)}")
    run = open_run(path, allowed, uses=("model", "loss"))
    return Card.of(run.experiment), run.model
