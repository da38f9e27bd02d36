"""The names of the files in the folder of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from torchlasso.integrations.pretrained.saving import FILES
from torchlasso.integrations.trackers.csv import TABLE
from torchlasso.integrations.trackers.tensorboard import FOLDER

EVENTS = re.compile(r"events\.out\.tfevents\..+")
FOLD, WEIGHTS = re.compile(r"fold-\d+\.jsonl"), re.compile(r"(fold-\d+-)?\d+\.(safetensors|json)")
INTERMEDIATE = re.compile(r"fold-\d+-\d+\.safetensors|(fold-\d+-)?\d+\.json")
PARTS_OF_A_MODEL = re.compile("|".join(map(re.escape, FILES)))
EXPORT = re.compile(r"(model|compact)\..+")

SWEEP, TRIALS = "sweep.json", "trials"  # in the folder of a sweep: its record, and the folder of its trials


class RunFiles:
    """The paths of the files that a run writes.

    Every run has ``config.json``, ``metrics.jsonl``, ``checkpoint/``, ``model.safetensors``, ``summary.json`` and
    ``report.html``. ``torchlasso compact`` adds ``compact.safetensors``, ``export`` the folder ``export/``, or
    ``transformers/`` and ``transformers-compact/``, and ``bench`` the file ``bench.json``. ``--log`` adds
    ``metrics.csv``, ``tensorboard/`` and ``trackers.json``. Image data add ``mean_images.safetensors``, texts
    ``words.safetensors``. A path also has ``path.jsonl``, ``points/`` and the figure of the frontier.

    Args:
        path: the path of the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "state.safetensors"
        self.model = self.path / "model.safetensors"
        self.compact = self.path / "compact.safetensors"
        self.summary = self.path / "summary.json"
        self.report = self.path / "report.html"
        self.exported = self.path / "export"
        self.bench = self.path / "bench.json"
        self.table = self.path / TABLE
        self.events = self.path / FOLDER
        self.trackers = self.path / "trackers.json"
        self.transformers = (self.path / "transformers", self.path / "transformers-compact")
        self.means = self.path / "mean_images.safetensors"
        self.words = self.path / "words.safetensors"
        self.points = self.path / "path.jsonl"
        self.weights = self.path / "points"
        self.frontiers = tuple(self.path / f"frontier.{ending}" for ending in ("png", "svg"))

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.resolve().name

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders that the run creates in its own."""
        return self.checkpoint.parent, self.weights, self.exported, self.events, *self.transformers

    def files(self) -> Iterator[Path]:
        """Yield the files that the run writes, whether they exist or not."""
        yield from (self.config, self.metrics, self.checkpoint, self.model, self.compact, self.summary, self.report)
        yield from (self.bench, self.means, self.words, self.points, *self.frontiers, self.table, self.trackers)
        for folder, names in (
            (self.path, FOLD),
            (self.weights, WEIGHTS),
            (self.exported, EXPORT),
            (self.events, EVENTS),
            *((folder, PARTS_OF_A_MODEL) for folder in self.transformers),
        ):
            yield from (file for file in folder.glob("*") if names.fullmatch(file.name))

    def results(self) -> Iterator[Path]:
        """Yield the files that are made of the trained model."""
        yield from (self.summary, self.model, self.compact, self.report, self.bench)
        for folder, names in ((self.exported, EXPORT), *((each, PARTS_OF_A_MODEL) for each in self.transformers)):
            yield from (file for file in folder.glob("*") if names.fullmatch(file.name))
