"""The folder of a run: which files it has, and writing each of them whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from torchlasso import checkpoint
from torchlasso.files import read_json, replacing, write_json, write_text


class RunFolder:
    """A folder that holds ``config.json``, ``metrics.jsonl``, ``checkpoint/``, ``model.safetensors``,
    ``summary.json`` and ``report.html``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "state.safetensors"
        self.model = self.path / "model.safetensors"
        self.summary = self.path / "summary.json"
        self.report = self.path / "report.html"

    @property
    def holds_a_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()

    def start(self, config: dict[str, Any]) -> None:
        """Make the folder, remove what an earlier run left of its own files, and write the configuration."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; --out names a folder")
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        for file in (self.config, self.metrics, self.checkpoint, self.model, self.summary, self.report):
            file.unlink(missing_ok=True)
        write_json(self.config, config)

    def part(self, name: str) -> RunFolder:
        """The folder of a comparison run."""
        return RunFolder(self.path / name)

    def remove_part(self, name: str) -> None:
        """Remove a comparison run that an earlier run left."""
        if self.part(name).holds_a_run:
            shutil.rmtree(self.path / name)

    def read_config(self) -> dict[str, Any]:
        """The configuration.

        Raises:
            ValueError: there is no run here, or its configuration is damaged.
        """
        if not self.holds_a_run:
            raise ValueError(f"{self.path} holds no run: it has no config.json")
        config = read_json(self.config)
        if not isinstance(config, dict):
            raise ValueError(f"{self.config} is damaged: it is not an object")
        return config

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the summary: the last file of a run."""
        write_json(self.summary, summary)

    def read_summary(self) -> dict[str, Any]:
        """The summary.

        Raises:
            ValueError: the run is not finished, or its summary is damaged.
        """
        if not self.summary.exists():
            raise ValueError(
                f"{self.path} holds no finished run; go on with: torchlasso train --resume --out {self.path}"
            )
        summary: dict[str, Any] = read_json(self.summary)
        return summary

    def read_metrics(self) -> list[dict[str, Any]]:
        """A dictionary for every epoch that is over."""
        if not self.metrics.exists():
            return []
        try:
            return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise ValueError(f"{self.metrics} is damaged: {error}") from error

    def write_metrics(self, epochs: list[dict[str, Any]]) -> None:
        """Write a line for every epoch."""
        write_text(self.metrics, "".join(json.dumps(epoch) + "\n" for epoch in epochs))

    def write_checkpoint(self, state: dict[str, Any]) -> None:
        """Write what a resume needs."""
        checkpoint.save(self.checkpoint, state)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """What a resume needs; None where no epoch is over."""
        if not self.checkpoint.exists():
            return None
        state: dict[str, Any] = checkpoint.load(self.checkpoint)
        return state

    def write_model(self, state: dict[str, Tensor]) -> None:
        """Write the weights."""
        # a copy each, because safetensors refuses tensors that share memory
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
        with replacing(self.model) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})

    def read_model(self) -> dict[str, Tensor]:
        """The weights.

        Raises:
            ValueError: the run is not finished, or its weights are damaged.
        """
        if not self.model.exists():
            raise ValueError(f"{self.path} holds no finished run: it has no model.safetensors")
        return checkpoint.read_tensors(self.model)[0]
