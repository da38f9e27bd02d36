"""Model cards: everything needed to use a model, for finished runs and for exported models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import torchlasso
from torchlasso._core.functions import need_consent
from torchlasso.data import Part, load_part
from torchlasso.data.image_decoding import ImageOptions
from torchlasso.data.stored.options import StreamOptions
from torchlasso.export import Exported, read_onnx, read_pt2
from torchlasso.runs import choices
from torchlasso.runs.finished import FinishedRun, open_run
from torchlasso.runs.quality import Judge, names_of_targets
from torchlasso.runs.records import NEWER, parse_record
from torchlasso.runs.rows import InputSpec
from torchlasso.training.losses import LOSSES, Loss

READERS: dict[str, Callable[[str], Exported]] = {".onnx": read_onnx, ".pt2": read_pt2}


@dataclass(frozen=True)
class ModelCard:
    """A model card: everything needed to use a model.

    Attributes:
        model: the name of the model.
        inputs: the preparation of rows, and the meaning of the outputs.
        loss, label, ignore, categories, task, group, time, images, survival, text: from the options of the training.
        constant: the constant answer of the training rows, see :class:`torchlasso.runs.quality.record.Quality`.
        torchlasso: the version that wrote the card.
    """

    model: str
    inputs: InputSpec
    loss_name: str | None = None
    label: str | None = None
    ignore: tuple[str, ...] = ()
    categories: tuple[str, ...] = field(default=(), metadata=NEWER)
    task: str | None = None
    group: str | None = None
    time: str | None = None
    images: ImageOptions = field(default=ImageOptions(), metadata=NEWER)
    survival: tuple[str, ...] = field(default=(), metadata=NEWER)
    text: tuple[str, ...] = field(default=(), metadata=NEWER)
    constant: tuple[float, ...] = field(default=(), metadata=NEWER)
    torchlasso: str = field(default=torchlasso.__version__)

    def __post_init__(self) -> None:
        if self.constant and len(self.constant) != self.inputs.outputs:
            raise ValueError(f"the constant answer has {len(self.constant)} values for {self.inputs.outputs} outputs")

    @classmethod
    def of(cls, run: FinishedRun) -> ModelCard:
        """Make the card of a run's model."""
        experiment, options = run.experiment, run.experiment.options
        test = run.folder.read_summary().test if run.folder.summary.exists() else None
        return cls(
            options.model,
            experiment.inputs,
            options.loss,
            label=options.label,
            ignore=(*options.ignore, *((options.weight,) if options.weight else ())),  # no input
            categories=options.categories,
            task=options.task,
            group=options.group,
            time=options.time_order,
            images=options.images,
            survival=options.survival or (),
            text=() if experiment.inputs.text is None else experiment.inputs.text.columns,
            constant=() if test is None else test.constant,
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for a file."""
        return asdict(self)

    def read(self, data: str, stream: StreamOptions | None = None) -> Part:
        """Read rows to predict.

        Args:
            data: as for ``load``.
            stream: whether they stay on the disk; by default they do not.

        Raises:
            ValueError: the data cannot be used.
        """
        return load_part(
            data,
            label=self.label,
            ignore=self.ignore,
            categories=self.categories,
            task=self.task,
            group=self.group,
            time=self.time,
            images=self.images,
            survival=(self.survival[0], self.survival[1]) if self.survival else None,
            text=self.text,
            stream=stream,
        )

    @property
    def judge(self) -> Judge:
        """The judge of the model's predictions."""
        targets, likely = names_of_targets(self.label, self.inputs.outputs), self.loss is LOSSES["cross-entropy"]
        judge = Judge(self.inputs.classes, self.constant, likely, targets, self.inputs.predictions)
        return replace(judge, is_survival=self.inputs.is_survival)

    @property
    def loss(self) -> Loss:
        """The loss that the model was trained with."""
        return choices.parse_loss(self.loss_name, bool(self.inputs.classes), self.inputs.is_survival)


class _Described(nn.Module):
    """An exported model whose outputs are checked against its card, since a file's card may be wrong."""

    def __init__(self, model: nn.Module, outputs: int) -> None:
        super().__init__()
        self.model, self.outputs = model, outputs

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(x)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.shape != (len(x), self.outputs):
            shape = f"the shape {tuple(found.shape)}" if isinstance(found, Tensor) else "several parts"
            raise ValueError(f"the exported model's outputs have {shape}; its card says {(len(x), self.outputs)}")
        return found


def open_model(path: str, allowed: Collection[str] = ()) -> tuple[ModelCard, nn.Module]:
    """Open the model of a finished run, or an exported model.

    Args:
        path: the folder of the run, or the exported file.
        allowed: functions that the file may name, ``package.module:function``; no other function runs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the path is neither a finished run nor a model exported by torchlasso, it is damaged, or it names a
            function that is not allowed.
    """
    reader = READERS.get(Path(path).suffix.lower())
    if reader is not None and not Path(path).is_dir():
        exported = reader(path)
        if not exported.metadata:
            raise ValueError(f"{path} was not written by torchlasso export: it has no description of its inputs")
        card = parse_record(ModelCard, exported.metadata, path)
        need_consent(Path(path), [card.loss_name], allowed)
        return card, _Described(exported, card.inputs.outputs)
    if Path(path).is_file():
        raise ValueError(f"{path} is neither the folder of a run nor a file {' or '.join(READERS)}")
    run = open_run(path, allowed, uses=("model", "loss"))
    return ModelCard.of(run), run.model
