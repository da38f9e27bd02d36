"""``torchlasso export``: a finished run's model in the format of another runtime."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from torchlasso import storage
from torchlasso._core import files
from torchlasso._core.readable import byte_size
from torchlasso._core.specs import unknown
from torchlasso.cli import options, screen
from torchlasso.export import to_onnx, to_pt2
from torchlasso.runs.card import Card
from torchlasso.runs.finished import FinishedRun, open_run
from torchlasso.runs.replaced import refuse_others
from torchlasso.runs.weights import told
from torchlasso.storage import checkpoint


@dataclass(frozen=True)
class Format:
    """A format: how its files end, how one is written, and what can be done with it, in a sentence."""

    ending: str
    write: Callable[[FinishedRun, Path, dict[str, Any]], None]
    use: str


def _onnx(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    to_onnx(run.model, run.experiment.example, path, metadata=card)


def _pt2(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    to_pt2(run.model, run.experiment.example, path, metadata=card)


def _texts(run: FinishedRun, card: dict[str, Any]) -> dict[str, str]:
    return {"format": "pt", "torchlasso": json.dumps(card), **told(run.cuts)}


def _safetensors(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    checkpoint.write_tensors(path, run.model.state_dict(), _texts(run, card))


def _compressed(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    storage.save(run.model, path, metadata=_texts(run, card))


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", _onnx, "Outputs compared with onnxruntime's; batches of any size."),
    "pt2": Format(".pt2", _pt2, "Outputs compared; batches of any size; torch.export.load reads it."),
    "safetensors": Format(".safetensors", _safetensors, "The weights as they are."),
    "compressed": Format(".sparse.safetensors", _compressed, "Zeros cost next to nothing; torchlasso.load reads it."),
}


def export(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[str, typer.Option("--format", help=f"{', '.join(FORMATS)}.")] = "onnx",
    compact: Annotated[
        bool, typer.Option("--compact", help="The model that torchlasso compact made, instead of the whole one.")
    ] = False,
    out: Annotated[str | None, typer.Option(help="File to write; without it, one in RUN/export.")] = None,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
) -> None:
    """Write a run's model for another runtime, with its class names and how its inputs are prepared.

    Example: torchlasso export runs/a --format onnx --compact
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    chosen = FORMATS[format_]
    finished = open_run(run, options.allowed(by=allow_code), compact=compact)
    if not out:
        refuse_others((), [finished.folder.exported])  # a link would lead out of the run
    path = Path(out) if out else finished.folder.exported / f"{'compact' if compact else 'model'}{chosen.ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    chosen.write(finished, path, Card.of(finished.experiment).to_dict())
    count = path.stat().st_size
    if as_json:
        print(files.as_json({"file": str(path), "format": format_, "bytes": count}), end="")
        return
    screen.say(f"{path}: {byte_size(count)}. {chosen.use}")
