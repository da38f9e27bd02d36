"""The command line in process: a tool that calls it, and reads what it wrote."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from tests.support.pages import short_pages
from tests.support.programs import Ended
from torchlasso.cli.main import main

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05", "--lam", "0.02", "--epochs", "3")


@dataclass(frozen=True)
class Tool:
    """The command line in process, with readers of the files that it writes."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: object) -> Ended:
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Ended(ended.value.code, *self.capsys.readouterr())

    def train(self, data: object, out: Path, *more: object) -> Ended:
        """Train a small run; ``more`` comes after the options and overrides them."""
        return self("train", "--data", data, "--out", out, *OPTIONS, *more)

    def resume(self, out: Path, *more: object) -> Ended:
        return self("train", "--resume", "--out", out, *more)

    @staticmethod
    def assert_refused(ended: Ended, *names: str) -> None:
        """Check for the exit code 2, and one line on stderr that contains these names."""
        assert ended.code == 2, ended
        assert ended.err.count("\n") == 1, ended.err
        assert ended.err.endswith("\n")
        assert ended.err.startswith("error: ")
        assert len(ended.err) > len("error: \n"), "it says nothing"
        assert "Traceback" not in ended.err
        for name in names:
            assert name in ended.err, ended.err

    @staticmethod
    def contents(folder: Path) -> dict[str, bytes]:
        """Return all files of a folder by their relative names."""
        found = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}

    @staticmethod
    def metrics(folder: Path, *, timed: bool = True) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return lines if timed else [{k: v for k, v in line.items() if k != "seconds"} for line in lines]

    @staticmethod
    def summary(folder: Path, *, timed: bool = True) -> dict[str, Any]:
        found = json.loads((folder / "summary.json").read_text())
        if not timed:
            found.pop("features_read", None)  # known where the page shows them, and tests write short pages
        return found if timed else _untimed(found)

    @staticmethod
    def as_arguments(options: dict[str, Any]) -> list[str]:
        """Return the command line for the options of a config.json."""
        arguments = []
        for key, value in options.items():
            if value is None or value is False or value == []:
                continue
            arguments.append(f"--{key.replace('_', '-')}")
            if value is not True:
                arguments.append(",".join(value) if isinstance(value, list) else str(value))
        return arguments

    @staticmethod
    @contextmanager
    def full_disk(limit: int) -> Iterator[None]:
        """Let no file grow beyond ``limit`` bytes: a write fails part-way, as on a full disk."""
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # Python ignores the signal that would kill
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def succeed(*arguments: object, short: bool = False) -> None:
    """Run a command that must succeed, in a fixture that several tests share.

    Args:
        arguments: of the command line.
        short: whether pages are short, which the fixture for single tests comes too late for.
    """
    with pytest.raises(SystemExit) as ended, short_pages() if short else nullcontext():
        main([str(argument) for argument in arguments])
    assert ended.value.code == 0


def weights(run: Path) -> dict[str, Tensor]:
    """Return the tensors of a run's model."""
    return dict(load_file(run / "model.safetensors"))


def _untimed(summary: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in summary.items() if key != "seconds"}
    return {key: _untimed(value) if isinstance(value, dict) else value for key, value in kept.items()}
