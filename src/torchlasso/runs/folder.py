"""The folder of a run: its files, each written atomically."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from torchlasso._core.files import (
    as_json,
    read_json,
    read_json_lines,
    read_text,
    replacing,
    sweep,
    write_json,
    write_text,
)
from torchlasso._core.functions import need_consent
from torchlasso._core.locks import held
from torchlasso.distributed.processes import by_first, is_first, wait
from torchlasso.runs.epoch import Epoch
from torchlasso.runs.experiment import PARTS, REFIT, Experiment
from torchlasso.runs.no_run import why_no_run
from torchlasso.runs.page_files import PageFiles
from torchlasso.runs.records import parse_record
from torchlasso.runs.replaced import refuse_others, remove
from torchlasso.runs.summary import Summary
from torchlasso.runs.weights import read_weights, read_words, write_weights
from torchlasso.storage import checkpoint

CODE = ("data", "loss", "model")  # the options that may name a function
TRAINING_CODE = (*CODE, "augment")  # with an option that may name several, which only a training uses


class RunFolder(PageFiles):
    """The folder of a run, and methods to read and write each of its files.

    Args:
        path: the path of the folder.
        allowed: functions that its configuration may name, ``package.module:function``; no other function runs.
    """

    def __init__(self, path: str | Path, allowed: Collection[str] = ()) -> None:
        if not str(path):
            raise ValueError("a run is named by its folder; got an empty text")
        super().__init__(Path(path))
        self.allowed = allowed

    @property
    def holds_a_run(self) -> bool:
        """True if a run was started here."""
        return self.config.is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for one training, and create it if necessary; the first process holds the lock.

        Raises:
            BlockingIOError: another training holds the lock.
            ValueError: there is a link in the place of one of the run's folders.
        """
        with ExitStack() as stack:
            wait()
            if is_first():
                self._make()
                taken = f"{self.path} is in use: another training writes into it"
                stack.enter_context(held(self.path / ".lock", taken))
                parts = [*map(self.part, PARTS)]
                inner = [folder for run in (self, *parts) for folder in run.folders]
                folders = [*(part.path for part in parts), *inner]
                refuse_others((), folders)  # a link could lead out of the run
                for folder in (self.path, *folders):
                    sweep(folder)
            wait()
            yield

    @by_first
    def start(self, experiment: Experiment) -> None:
        """Create the folder and write the configuration, replacing the files of an earlier run.

        No file of an earlier run is removed before the new configuration is on the disk.

        Raises:
            ValueError: the folder holds something else in the place of a run's file; nothing was changed.
        """
        self._make()
        runs = list(self._runs())
        folders = [*(part.path for part in runs[1:]), *(folder for run in runs for folder in run.folders)]
        refuse_others((file for run in runs for file in run.files()), folders)
        files = [file for run in runs for file in run.files()]
        with replacing(self.config) as file:
            file.write(as_json(asdict(experiment)).encode())
            file.flush()
            remove(files, folders)
        self.checkpoint.parent.mkdir(exist_ok=True)

    @by_first
    def amend(self, experiment: Experiment) -> None:
        """Replace the configuration of a run that goes on with other trackers or more epochs."""
        write_json(self.config, asdict(experiment))

    @by_first
    def extend(self, experiment: Experiment) -> None:
        """Replace the configuration of a finished run by one with more epochs, and remove its results and its refit."""
        refit = list(self.part(REFIT).files()) if self.part(REFIT).is_part else []
        with replacing(self.config) as file:
            file.write(as_json(asdict(experiment)).encode())
            file.flush()
            remove([*self.results(), *refit], ())

    def _make(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; --out must name a folder")
        self.path.mkdir(parents=True, exist_ok=True)

    def _runs(self) -> Iterator[RunFolder]:
        """Yield the run, and the comparison runs in its folder."""
        yield self
        for part in self._parts():
            yield from part._runs()

    def _parts(self) -> Iterator[RunFolder]:
        """Yield the comparison runs in the folder."""
        for part in map(self.part, PARTS):
            if part.holds_a_run:
                if not part.is_part:
                    raise ValueError(f"{part.path} holds an unrelated run in the place of a comparison")
                yield part

    @property
    def is_part(self) -> bool:
        """True if it is the folder of a comparison, with the same configuration as the run around it."""
        whole = RunFolder(self.path.parent)
        if self.path.name not in PARTS or not (self.holds_a_run and whole.holds_a_run):
            return False
        texts = [read_text(folder.config) for folder in (self, whole)]
        return texts[0] == texts[1] or _as_begun(self.read_experiment(())) == _as_begun(whole.read_experiment(()))

    def part(self, name: str) -> RunFolder:
        """Return the folder of a comparison run."""
        return RunFolder(self.path / name, self.allowed)

    def started_part(self, name: str, experiment: Experiment) -> RunFolder:
        """Return the folder of a comparison run, and start the run if it was not started before.

        Raises:
            ValueError: the folder holds an unrelated run.
        """
        part = self.part(name)
        if not part.holds_a_run:
            part.start(experiment)
        elif not part.is_part:
            raise ValueError(f"{part.path} holds an unrelated run in the place of a comparison")
        elif part.read_experiment(()) != experiment:
            part.amend(experiment)
        return part

    def read_experiment(self, uses: Iterable[str] = TRAINING_CODE) -> Experiment:
        """Return the experiment that the configuration describes.

        Args:
            uses: the options that will be used, among those that may name a function.

        Raises:
            ValueError: there is no run here, its configuration is damaged, or it names a function that is not allowed.
        """
        if not self.holds_a_run:
            raise ValueError(why_no_run(self.path, self.config.name))
        experiment = parse_record(Experiment, read_json(self.config), str(self.config))
        values = [getattr(experiment.options, name) for name in uses]
        names = [name for value in values for name in (value if isinstance(value, tuple) else (value,))]
        need_consent(self.config, names, self.allowed)
        return experiment

    @by_first
    def write_summary(self, summary: Summary) -> None:
        """Write the summary: the last file of a run."""
        write_json(self.summary, summary.to_dict())

    def read_summary(self) -> Summary:
        """Read the summary.

        Raises:
            ValueError: the run is not finished, or its summary is damaged.
        """
        if not self.summary.exists():
            command = "path" if self.points.exists() else "train"
            raise ValueError(
                f"{self.path} holds no finished run; resume it with: torchlasso {command} --resume --out {self.path}"
            )
        return parse_record(Summary, read_json(self.summary), str(self.summary))

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read the metrics: a dictionary for every finished epoch."""
        if not self.metrics.exists():
            return []
        lines: list[dict[str, Any]] = read_json_lines(self.metrics)
        if [parse_record(Epoch, line, str(self.metrics)).epoch for line in lines] != list(range(1, len(lines) + 1)):
            raise ValueError(f"{self.metrics} is damaged: its epochs are not 1, 2, 3, …")
        return lines

    @by_first
    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """Write a line for every epoch."""
        write_text(self.metrics, "".join(json.dumps(epoch) + "\n" for epoch in epochs))

    @by_first
    def write_trackers(self, identities: Mapping[str, str]) -> None:
        """Write the names under which the servers of trackers know this training."""
        write_json(self.trackers, identities)

    def read_trackers(self) -> dict[str, str]:
        """Read these names; empty if there are none.

        Raises:
            ValueError: the file is damaged.
        """
        found = read_json(self.trackers) if self.trackers.exists() else {}
        if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
            raise ValueError(f"{self.trackers} is damaged: it has no text for each tracker")
        return found

    @by_first
    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state for a resume."""
        checkpoint.save_state(self.checkpoint, state)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Read the state for a resume; None before the end of the first epoch."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = checkpoint.load_state(self.checkpoint)
        return state

    @by_first
    def write_model(self, state: dict[str, Tensor], cuts: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write the weights, and the records of units removed during training."""
        write_weights(self.model, state, cuts)

    @by_first
    def write_compact(
        self, state: dict[str, Tensor], cuts: Sequence[Mapping[str, Any]], words: Sequence[int] | None = None
    ) -> None:
        """Write the weights of the compacted model, the records of its removed units, and the words that it reads."""
        write_weights(self.compact, state, cuts, words)

    def read_model(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Read the weights, and the records of units removed during training.

        Raises:
            ValueError: the run is not finished, or its weights are damaged.
        """
        if not self.model.exists():
            raise ValueError(why_no_run(self.path, self.model.name))
        return read_weights(self.model)

    def read_kept_words(self) -> list[int] | None:
        """Read the numbers of the words that the compacted model reads; None if none were left out.

        Raises:
            ValueError: the model was not compacted, or its file is damaged.
        """
        self._need_compact()
        return read_words(self.compact)

    def read_compact(self) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
        """Read the weights of the compacted model, and the records of its removed units.

        Raises:
            ValueError: the model was not compacted, or these weights are damaged.
        """
        self._need_compact()
        return read_weights(self.compact)

    def _need_compact(self) -> None:
        if not self.compact.exists():
            raise ValueError(f"{self.path} has no compacted model; make it with: torchlasso compact {self.path}")


def _as_begun(experiment: Experiment) -> Experiment:
    """Return an experiment without everything that a resume may change."""
    return replace(experiment, options=replace(experiment.options, log=(), extensions=()))
