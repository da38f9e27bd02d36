"""The forms of a run's model that ``torchlasso bench`` compares."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from torchlasso._core.text import first_line
from torchlasso.compaction import compact
from torchlasso.export import read_onnx, to_onnx
from torchlasso.inference import accelerate
from torchlasso.inference.backends import ModelToRun, backends
from torchlasso.runs.finished import FinishedRun, open_run
from torchlasso.runs.options import DENSE
from torchlasso.runs.words import without_unread_words
from torchlasso.storage import checkpoint, save


@dataclass(frozen=True)
class Variant:
    """One form of a model.

    Attributes:
        name: the name of the form.
        build: a function that builds the model.
        bytes: the size of its file; None for a backend, which has no file, and whose memory is not measured.
        dtype: the dtype of its inputs.
        judged: whether to report its error, which means something only for a trained model.
        numbers: the numbers that the words of texts have in the form; None for those of the run.
    """

    name: str
    build: Callable[[], nn.Module]
    bytes: int | None
    dtype: torch.dtype = torch.float32
    judged: bool = True
    numbers: Tensor | None = None

    def given(self, x: Tensor) -> Tensor:
        """Return inputs of the run as the form takes them."""
        x = x if self.numbers is None else self.numbers.to(x.device)[x]
        return x.to(self.dtype) if x.is_floating_point() else x


def variants(
    run: FinishedRun, folder: Path, example: Tensor, calibration: Tensor, seconds: float, ways: Sequence[str]
) -> Iterator[Variant | str]:
    """Yield the forms of a run's model; for a form that cannot be made, a text with the reason.

    Args:
        run: a finished run.
        folder: a folder for the files of the forms.
        example: inputs on which the fastest way to run each layer is measured.
        calibration: training inputs, of which int8 takes the ranges of its numbers.
        seconds: the time for these measurements.
        ways: the names of the backends by which the compacted model runs as a whole, if it could be compacted.
    """
    model = run.model.eval()
    dense, learned = _dense(run)
    whole = folder / "dense.safetensors"
    checkpoint.write_tensors(whole, dense.state_dict(), {})
    yield Variant("dense", lambda: dense, whole.stat().st_size, judged=learned)
    yield Variant("penalised", lambda: model, _compressed(model, folder / "penalised.safetensors"))
    read, numbers = _words(run)
    inputs = example if numbers is None else numbers[example]
    try:
        small = compact(read, inputs)
    except (RuntimeError, ValueError) as error:
        yield f"compact: {first_line(error)}"
        small = None
    base = model if small is None else small
    count = _compressed(base, folder / "compact.safetensors")
    if small is not None:
        yield Variant("compact", lambda: small, count, numbers=numbers)
    else:
        inputs, numbers = example, None
    fast = accelerate(base, inputs, seconds=seconds, compact_first=False)  # base is compact already, if possible
    yield Variant("accelerated", lambda: fast, count, numbers=numbers)
    half = folder / "bfloat16.safetensors"
    checkpoint.write_tensors(half, _narrow(dense).state_dict(), {})
    yield Variant("dense, bfloat16", lambda: _narrow(dense), half.stat().st_size, torch.bfloat16, learned)
    text = run.experiment.inputs.text
    longest = None if text is None else text.longest
    yield _onnx("dense, onnx", dense, example, folder / "dense.onnx", learned, longest=longest)
    path = folder / "compact.onnx"
    if small is not None:
        yield _onnx("compact, onnx", small, inputs, path, numbers=numbers, longest=longest)
    kind = "penalised" if small is None else "compact"
    calibration = calibration if numbers is None else numbers[calibration]
    given = ModelToRun(base, inputs, calibration, longest, path)
    for way in ways:
        yield from _whole(f"{kind}, {way}", way, given, numbers)


def _whole(name: str, way: str, given: ModelToRun, numbers: Tensor | None) -> Iterator[Variant | str]:
    """Yield a model that a backend runs, or why it cannot; nothing if the backend would not change it."""
    try:
        model = backends()[way].build(given)
    except Exception as error:  # of any kind: exporters, compilers and runtimes have their own classes
        yield f"{name}: {first_line(error)}"
        return
    if model is not None:
        yield Variant(name, lambda: model, None, numbers=numbers)


def _dense(run: FinishedRun) -> tuple[nn.Module, bool]:
    """Return the dense network and whether it was trained: the comparison run's, or else the untrained model."""
    part = run.folder.part(DENSE)
    if part.model.exists():
        return open_run(str(part.path), part.allowed).model.eval(), True
    return run.experiment.build_model().eval(), False


def _narrow(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).to(torch.bfloat16)


def _compressed(model: nn.Module, path: Path) -> int:
    save(model, path)
    return path.stat().st_size


def _words(run: FinishedRun) -> tuple[nn.Module, Tensor | None]:
    """Return a model of texts without the words that it does not read, and their new numbers; else the run's model."""
    found = without_unread_words(run.model, run.experiment)
    if found is None:
        return run.model, None
    model, kept = found
    numbers = torch.zeros(run.experiment.inputs.shape[1], dtype=torch.long)
    numbers[kept] = torch.arange(len(kept))
    return model, numbers.to(next(model.parameters()).device)


def _onnx(
    name: str,
    model: nn.Module,
    example: Tensor,
    path: Path,
    learned: bool = True,
    numbers: Tensor | None = None,
    longest: int | None = None,
) -> Variant | str:
    try:
        to_onnx(model, example, path, longest=longest)
    except (RuntimeError, ValueError) as error:
        return f"{name}: {first_line(error)}"
    return Variant(name, lambda: read_onnx(path), path.stat().st_size, judged=learned, numbers=numbers)
