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
from torchlasso.runs.card import ModelCard
from torchlasso.runs.finished import FinishedRun, open_run
from torchlasso.runs.replaced import refuse_others
from torchlasso.runs.transformers_folder import write_folder
from torchlasso.runs.weights import told
from torchlasso.runs.words import with_own_numbers
from torchlasso.storage import checkpoint

TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        ending: of its files.
        write: the function that writes it, and may return a sentence on its use.
        use: such a sentence.
        runs: whether the file runs by itself, so that it takes the numbers of its tokenizer.
    """

    ending: str
    write: Callable[[FinishedRun, Path, dict[str, Any]], str | None]
    use: str
    runs: bool = False


def _onnx(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    to_onnx(run.model, run.experiment.example, path, metadata=card, longest=_longest(run))


def _pt2(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    to_pt2(run.model, run.experiment.example, path, metadata=card, longest=_longest(run))


def _with_own_numbers(run: FinishedRun) -> FinishedRun:
    model, experiment = with_own_numbers(run.model, run.experiment)
    return run._replace(model=model, experiment=experiment)


def _longest(run: FinishedRun) -> int | None:
    """Return the most words of a text, or None for other inputs."""
    return None if run.experiment.inputs.text is None else run.experiment.inputs.text.longest


def _texts(run: FinishedRun, card: dict[str, Any]) -> dict[str, str]:
    return {"format": "pt", "torchlasso": json.dumps(card), **told(run.cuts)}


def _safetensors(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    checkpoint.write_tensors(path, run.model.state_dict(), _texts(run, card))


def _compressed(run: FinishedRun, path: Path, card: dict[str, Any]) -> None:
    storage.save(run.model, path, metadata=_texts(run, card))


def _transformers(run: FinishedRun, path: Path, card: dict[str, Any]) -> str:
    return write_folder(run, path, {"format": "pt", "torchlasso": json.dumps(card)})


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", _onnx, "The outputs match onnxruntime's. It takes batches of any size.", True),
    "pt2": Format(".pt2", _pt2, "The outputs match. It takes batches of any size; torch.export.load reads it.", True),
    "safetensors": Format(".safetensors", _safetensors, "It has the weights, uncompressed."),
    TRANSFORMERS: Format("", _transformers, "It is a folder, which transformers reads."),
    "compressed": Format(".sparse.safetensors", _compressed, "Zeros take almost no space; torchlasso.load reads it."),
}


def export(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[str, typer.Option("--format", help=f"File format: {', '.join(FORMATS)}.")] = "onnx",
    compact: Annotated[
        bool, typer.Option("--compact", help="Export the model that torchlasso compact wrote instead of the full one.")
    ] = False,
    out: Annotated[str | None, typer.Option(help="File to write; without it, a file in RUN/export.")] = None,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file, its format and its size as JSON.")] = False,
) -> None:
    """Write a run's model for another runtime, with its class names and the preparation of its inputs.

    Example: torchlasso export runs/a --format onnx --compact
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, FORMATS)
    chosen = FORMATS[format_]
    finished = open_run(run, options.allowed(by=allow_code), compact=compact)
    if not out:
        refuse_others((), [finished.folder.exported, *finished.folder.transformers])  # a link could lead out of the run
    usual = finished.folder.exported / f"{'compact' if compact else 'model'}{chosen.ending}"
    if format_ == TRANSFORMERS:
        usual = finished.folder.transformers[compact]
    path = Path(out) if out else usual
    path.parent.mkdir(parents=True, exist_ok=True)
    given = _with_own_numbers(finished) if chosen.runs else finished
    use = chosen.write(given, path, ModelCard.of(given).to_dict()) or chosen.use
    written = path.iterdir() if path.is_dir() else [path]
    count, text = sum(file.stat().st_size for file in written), finished.experiment.inputs.text
    record: dict[str, Any] = {"file": str(path), "format": format_, "bytes": count}
    if text is not None:
        tokenizer = path.with_name(f"{path.name.removesuffix(chosen.ending)}.tokenizer.json")
        files.write_text(tokenizer, text.padded)
        record["tokenizer"] = str(tokenizer)
    if as_json:
        print(files.as_json(record), end="")
        return
    screen.say(f"{path}: {byte_size(count)}. {use}")
    if text is not None:
        screen.say(f"{record['tokenizer']}: its tokenizer, which makes the numbers that the model takes of texts.")
