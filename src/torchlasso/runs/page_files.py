"""The files that a page is drawn from: the points of a path and their weights, mean images, words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from torchlasso._core.files import read_json, read_json_lines, write_json, write_text
from torchlasso.distributed.processes import by_first
from torchlasso.path import Point
from torchlasso.runs.files import INTERMEDIATE, RunFiles
from torchlasso.runs.records import parse_record
from torchlasso.runs.word_effects import WordEffects
from torchlasso.storage import checkpoint


class PageFiles(RunFiles):
    """Methods to read and write the files that the page of a run is drawn from.

    Args:
        path: the path of the folder.
    """

    def read_points(self, fold: int | None = None) -> list[Point]:
        """Read the trained points of a path, or the points of a fold of its cross-validation."""
        file = self._points_of(fold)
        if not file.exists():
            return []
        points = [parse_record(Point, line, str(file)) for line in read_json_lines(file)]
        if [point.index for point in points] != list(range(len(points))):
            raise ValueError(f"{file} is damaged: its points are not 0, 1, 2, …")
        return points

    @by_first
    def write_points(self, points: Sequence[Point], fold: int | None = None) -> None:
        """Write a line for every point of a path or of a fold."""
        lines = (json.dumps(asdict(point), allow_nan=False) + "\n" for point in points)
        write_text(self._points_of(fold), "".join(lines))

    def _points_of(self, fold: int | None) -> Path:
        return self.points if fold is None else self.path / f"fold-{fold}.jsonl"

    @by_first
    def write_weights(self, index: int, state: dict[str, Tensor], fold: int | None = None) -> None:
        """Write the weights of a point of a path, or of a fold."""
        self.weights.mkdir(exist_ok=True)
        checkpoint.write_tensors(self._weights_of(index, fold), state, {"format": "pt"})

    def read_weights(self, index: int, fold: int | None = None) -> dict[str, Tensor]:
        """Read the weights of a point of a path, or of a fold.

        Raises:
            FileNotFoundError: there are none.
            ValueError: they are damaged.
        """
        return checkpoint.read_tensors(self._weights_of(index, fold))[0]

    def has_weights(self, index: int, fold: int | None = None) -> bool:
        """Return whether the weights of a point are there; a fold has those of its last one while it is trained."""
        return self._weights_of(index, fold).is_file()

    def remove_weights(self, index: int, fold: int) -> None:
        """Remove the weights of a point of a fold, if they are there."""
        self._weights_of(index, fold).unlink(missing_ok=True)

    def remove_intermediate(self) -> None:
        """Remove the files that only the training of a path needs, once all of its points are there."""
        for file in self.weights.glob("*"):
            if INTERMEDIATE.fullmatch(file.name):
                file.unlink()

    def _weights_of(self, index: int, fold: int | None = None) -> Path:
        return self.weights / f"{_part(fold)}{index:03}.safetensors"

    def write_alone(self, point: Point, fold: int | None) -> None:
        """Write a point that was trained by itself."""
        self.weights.mkdir(exist_ok=True)
        write_json(self._alone(point.index, fold), asdict(point))

    def read_alone(self, index: int, fold: int | None) -> Point | None:
        """Read a point that was trained by itself; None if it is not there yet.

        Raises:
            ValueError: it is damaged.
        """
        file = self._alone(index, fold)
        return parse_record(Point, read_json(file), str(file)) if file.is_file() else None

    def gather_alone(self, points: int, fold: int | None) -> None:
        """Write the points of a path or of a fold, all of which were trained by themselves, into one file.

        Raises:
            ValueError: one of them is missing, or damaged.
        """
        found = [self.read_alone(index, fold) for index in range(points)]
        known = [point for point in found if point is not None]
        if len(known) < points:
            raise ValueError(f"{self._alone(found.index(None), fold)} is missing; it was removed during the training")
        self.write_points(known, fold)

    def _alone(self, index: int, fold: int | None) -> Path:
        return self.weights / f"{_part(fold)}{index:03}.json"

    @by_first
    def write_means(self, images: Tensor | None) -> None:
        """Write the mean images of the training rows, if the rows are images."""
        if images is not None:
            checkpoint.write_tensors(self.means, {"images": images}, {"format": "pt"})

    def read_means(self) -> Tensor | None:
        """Read the mean images of the training rows; None if there are none.

        Raises:
            ValueError: they are damaged.
        """
        return checkpoint.read_tensors(self.means)[0].get("images") if self.means.exists() else None

    @by_first
    def write_words(self, effects: WordEffects | None) -> None:
        """Write the words that the model reads and their effects, if the rows are texts."""
        if effects is not None:
            checkpoint.write_tensors(self.words, effects.to_dict(), {"format": "pt"})

    def read_words(self) -> WordEffects | None:
        """Read the words that the model reads and their effects; None if there are none.

        Raises:
            ValueError: they are damaged.
        """
        if not self.words.exists():
            return None
        try:
            return WordEffects(**checkpoint.read_tensors(self.words)[0])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.words} is damaged: {error}") from error


def _part(fold: int | None) -> str:
    return "" if fold is None else f"fold-{fold}-"
