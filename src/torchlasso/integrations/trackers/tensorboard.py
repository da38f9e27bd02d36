"""TensorBoard: curves in the folder ``tensorboard`` of a run."""

from __future__ import annotations

from collections.abc import Sequence

from torchlasso._core.extras import require
from torchlasso.integrations.trackers.base import EpochFigures, Tracked, Tracker, register

FOLDER, EVENTS = "tensorboard", "events.out.tfevents.*"
PARTS = {"val_": "validation/", "test_": "test/"}  # the beginnings of names ↦ TensorBoard's groups of curves


@register("tensorboard")
class TensorBoard(Tracker):
    """Curves for ``tensorboard --logdir``, by :class:`torch.utils.tensorboard.SummaryWriter`.

    A resumed training writes the curves anew, so that no epoch is missing or there twice.
    """

    package = "tensorboard"

    def __init__(self, training: Tracked, epochs: Sequence[EpochFigures]) -> None:
        writer = require("torch.utils.tensorboard", self.package, "--log tensorboard").SummaryWriter
        folder = training.folder / FOLDER
        for file in folder.glob(EVENTS):
            file.unlink()
        self.writer = writer(str(folder))
        rows = "".join(f"| {name} | {value} |\n" for name, value in training.settings.items())
        self.writer.add_text("options", f"| option | value |\n|---|---|\n{rows}")
        for number, figures in enumerate(epochs, start=1):
            self._add(number, figures)
        self.writer.flush()

    def epoch(self, number: int, figures: EpochFigures) -> None:
        self._add(number, figures)
        self.writer.flush()

    def result(self, number: int, figures: EpochFigures) -> None:
        self._add(number, figures)

    def close(self, *, failed: bool) -> None:
        self.writer.close()

    def _add(self, number: int, figures: EpochFigures) -> None:
        for name, value in figures.items():
            self.writer.add_scalar(_tag(name), value, number)


def _tag(name: str) -> str:
    return next(
        (name.replace(start, part, 1) for start, part in PARTS.items() if name.startswith(start)), f"training/{name}"
    )
