"""The folder of a run: which files it has, and writing each of them whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from torchlasso._core.files import as_json, read_json, replacing, write_json, write_text
from torchlasso._core.functions import need_consent
from torchlasso.distributed.processes import by_first
from torchlasso.path import Point
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.records import build
from torchlasso.runs.summary import Summary
from torchlasso.storage import checkpoint

CODE = ("data", "loss", "model")  # the options that may name a function
CUTS = "torchlasso.cuts"  # where a file of weights says what was taken out of the model


class RunFolder:
    """The files of a run, and how each is written whole.

    It holds ``config.json``, ``metrics.jsonl``, ``checkpoint/``, ``model.safetensors``, ``summary.json`` and
    ``report.html``; once it was compacted ``compact.safetensors``, once exported ``export/``, once measured
    ``bench.json``; where the data are images ``mean_images.safetensors``; for a path ``path.jsonl``, ``points/`` and
    the figure of the frontier, too.

    Args:
        path: of the folder.
        allowed: functions that its configuration may name, ``package.module:function``; none of the others is run.
    """

    def __init__(self, path: str | Path, allowed: Collection[str] = ()) -> None:
        if not str(path):
            raise ValueError("--out is empty; it names a folder")
        self.path = Path(path)
        self.allowed = allowed
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "state.safetensors"
        self.model = self.path / "model.safetensors"
        self.compact = self.path / "compact.safetensors"
        self.summary = self.path / "summary.json"
        self.report = self.path / "report.html"
        self.exported = self.path / "export"
        self.bench = self.path / "bench.json"
        self.means = self.path / "mean_images.safetensors"
        self.points = self.path / "path.jsonl"
        self.weights = self.path / "points"
        self.frontiers = tuple(self.path / f"frontier.{ending}" for ending in ("png", "svg"))

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()

    @by_first
    def start(self, experiment: Experiment) -> None:
        """Make the folder and write the configuration, in the place of what an earlier run left.

        Nothing of an earlier run is removed before the new configuration is on the disk.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; --out names a folder")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.config) as temporary:
            temporary.write_text(as_json(asdict(experiment)), encoding="utf-8")
            for file in (
                self.config,
                self.metrics,
                self.checkpoint,
                self.model,
                self.compact,
                self.summary,
                self.report,
                self.bench,
                self.means,
                self.points,
                *self.frontiers,
                *self.weights.glob("*"),
                *self.path.glob("fold-*.jsonl"),
                *self.exported.glob("*"),
            ):
                file.unlink(missing_ok=True)
            for part in self.path.iterdir():
                if part.is_dir() and RunFolder(part).holds_a_run:
                    shutil.rmtree(part)

    @by_first
    def sweep(self) -> None:
        """Remove the unfinished files that a killed process left."""
        for file in self.path.rglob(".*.part"):
            file.unlink()

    def part(self, name: str) -> RunFolder:
        """The folder of a comparison run."""
        return RunFolder(self.path / name, self.allowed)

    def read_experiment(self, uses: Iterable[str] = CODE) -> Experiment:
        """Return the experiment that the configuration describes.

        Args:
            uses: the options that are going to be used, of those that may name a function.

        Raises:
            ValueError: there is no run here, its configuration is damaged, or it names a function that is not allowed.
        """
        if not self.holds_a_run:
            raise ValueError(f"{self.path} holds no run: it has no config.json")
        experiment = build(Experiment, read_json(self.config), str(self.config))
        need_consent(self.config, [getattr(experiment.options, name) for name in uses], self.allowed)
        return experiment

    @by_first
    def write_summary(self, summary: Summary) -> None:
        """Write the summary: the last file of a run."""
        write_json(self.summary, summary.to_dict())

    def read_summary(self) -> Summary:
        """The summary.

        Raises:
            ValueError: the run is not finished, or its summary is damaged.
        """
        if not self.summary.exists():
            command = "path" if self.points.exists() else "train"
            raise ValueError(
                f"{self.path} holds no finished run; go on with: torchlasso {command} --resume --out {self.path}"
            )
        return build(Summary, read_json(self.summary), str(self.summary))

    def read_metrics(self) -> list[dict[str, Any]]:
        """A dictionary for every epoch that is over."""
        if not self.metrics.exists():
            return []
        try:
            lines = [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
            if [line["epoch"] for line in lines] != list(range(1, len(lines) + 1)):
                raise ValueError("its epochs are not 1, 2, 3, …")
            return lines
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self.metrics} is damaged: {error}") from error

    @by_first
    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """Write a line for every epoch."""
        write_text(self.metrics, "".join(json.dumps(epoch) + "\n" for epoch in epochs))

    @by_first
    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write what a resume needs."""
        checkpoint.save(self.checkpoint, state)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """What a resume needs; None where no epoch is over."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = checkpoint.load(self.checkpoint)
        return state

    def read_points(self, fold: int | None = None) -> list[Point]:
        """The points of a path that are trained, or all those of a fold of its cross-validation."""
        file = self._points_of(fold)
        if not file.exists():
            return []
        try:
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {error}") from error
        points = [build(Point, line, str(file)) for line in lines]
        if [point.index for point in points] != list(range(len(points))):
            raise ValueError(f"{file} is damaged: its points are not 0, 1, 2, …")
        return points

    @by_first
    def write_points(self, points: Sequence[Point], fold: int | None = None) -> None:
        """Write a line for every point of a path, or of a fold."""
        lines = (json.dumps(asdict(point), allow_nan=False) + "\n" for point in points)
        write_text(self._points_of(fold), "".join(lines))

    def _points_of(self, fold: int | None) -> Path:
        return self.points if fold is None else self.path / f"fold-{fold}.jsonl"

    @by_first
    def write_weights(self, index: int, state: dict[str, Tensor]) -> None:
        """Write the weights of a point."""
        self.weights.mkdir(exist_ok=True)
        checkpoint.write_tensors(self._weights_of(index), state, {"format": "pt"})

    def read_weights(self, index: int) -> dict[str, Tensor]:
        """The weights of a point.

        Raises:
            FileNotFoundError: there are none.
            ValueError: they are damaged.
        """
        return checkpoint.read_tensors(self._weights_of(index))[0]

    @by_first
    def write_means(self, images: Tensor | None) -> None:
        """Write the mean images of the training rows, where these are images."""
        if images is not None:
            checkpoint.write_tensors(self.means, {"images": images}, {"format": "pt"})

    def read_means(self) -> Tensor | None:
        """The mean images of the training rows; None where there are none.

        Raises:
            ValueError: they are damaged.
        """
        return checkpoint.read_tensors(self.means)[0].get("images") if self.means.exists() else None

    def _weights_of(self, index: int) -> Path:
        return self.weights / f"{index:03}.safetensors"

    @by_first
    def write_model(self, state: dict[str, Tensor], cuts: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the weights, and what was taken out of the model while it trained."""
        _write_weights(self.model, state, cuts)

    @by_first
    def write_compact(self, state: dict[str, Tensor], cuts: Sequence[Mapping[str, Any]]) -> None:
        """Write the weights of the compacted model, and what was taken out of it."""
        _write_weights(self.compact, state, cuts)

    def read_model(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """The weights, and what was taken out of the model while it trained.

        Raises:
            ValueError: the run is not finished, or its weights are damaged.
        """
        if not self.model.exists():
            raise ValueError(f"{self.path} holds no finished run: it has no model.safetensors")
        return _read_weights(self.model)

    def read_compact(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """The weights of the compacted model, and what was taken out of it.

        Raises:
            ValueError: the model was not compacted, or these weights are damaged.
        """
        if not self.compact.exists():
            raise ValueError(f"{self.path} has no compacted model; make it with: torchlasso compact {self.path}")
        return _read_weights(self.compact)


def _read_weights(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    tensors, metadata = checkpoint.read_tensors(path)
    try:
        return tensors, json.loads(metadata.get(CUTS, "[]"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _write_weights(path: Path, state: dict[str, Tensor], cuts: Sequence[Mapping[str, Any]]) -> None:
    checkpoint.write_tensors(path, state, {"format": "pt", **told(cuts)})


def told(cuts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the metadata of a file of weights say what was taken out of the model: not at all, if nothing was."""
    return {CUTS: json.dumps(list(cuts))} if cuts else {}
