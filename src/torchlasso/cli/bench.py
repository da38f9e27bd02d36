"""``torchlasso bench``: compare the forms of a finished run's model."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from torchlasso._core import files
from torchlasso._core.readable import byte_size
from torchlasso.cli import options, screen
from torchlasso.cli.options import split_list
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.finished import open_run
from torchlasso.runs.folder import CODE
from torchlasso.runs.measuring import latencies, peak_memory
from torchlasso.runs.rows import read_data_again
from torchlasso.runs.variants import Variant, variants
from torchlasso.training.evaluation import Evaluation, evaluate_outputs, outputs_of
from torchlasso.training.rows import InputRows, evaluation_batches

# onnxruntime and bfloat16 are among the forms anyway
WAYS = ("folded", "channels-last", "openvino", "int8", "inductor")
QUICK = ",".join(way for way in WAYS if way != "inductor")
CALIBRATION = 256  # training rows
MOST_THREADS = 1024  # with too many, OpenMP ends the process


@dataclass(frozen=True)
class Measured:
    """The measurements of a form of the model on batches of one size.

    Attributes:
        name: the name of the form.
        batch: rows per batch.
        median_ms, spread_ms: the median of the milliseconds per batch, and their interquartile range.
        rows_per_second: rows per batch over the median.
        peak_memory: bytes; None if the system does not report it, and for backends.
        file_bytes: the size of the file; None for backends.
        error, loss: on the test rows; None for a form that was not trained.
    """

    name: str
    batch: int
    median_ms: float
    spread_ms: float
    rows_per_second: float
    peak_memory: int | None
    file_bytes: int | None
    error: float | None
    loss: float | None


def bench(
    run: Annotated[str, typer.Argument(help="Folder of a finished run.")],
    batch: Annotated[str, typer.Option(help="Batch sizes, one or more numbers separated by commas.")] = "1,64",
    threads: Annotated[int | None, typer.Option(help="CPU threads; without it, torch's default.")] = None,
    seconds: Annotated[
        float, typer.Option(help="Seconds to measure each batch size, and to choose the fastest way to run the layers.")
    ] = 5.0,
    backends: Annotated[
        str,
        typer.Option(help="Ways to run the whole compacted model as well; all adds inductor, which compiles. Or none."),
    ] = QUICK,
    allow_code: options.AllowCode = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurements as JSON.")] = False,
) -> None:
    """Measure a run's model on this machine: dense, penalised, compacted, accelerated, and by other backends.

    Example: torchlasso bench runs/a --threads 1

    The forms take turns on test rows. bench.json keeps the measurements, and report --html shows them.
    """
    sizes = _sizes(batch)
    if not seconds > 0:
        raise ValueError(f"--seconds must be above 0; got {seconds:g}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ValueError(f"--threads must be from 1 to {MOST_THREADS:,}; got {threads}")
    ways = _ways(backends)
    finished = open_run(run, options.allowed(by=allow_code), uses=CODE)
    rows = read_data_again(finished.experiment.options, finished.experiment.inputs)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with tempfile.TemporaryDirectory() as folder:
            x, trained_on = rows.test[0], rows.train[0]
            calibration = _rows(trained_on, min(CALIBRATION, len(trained_on)))
            found = list(variants(finished, Path(folder), _rows(x, max(sizes)), calibration, seconds, ways))
            forms = [form for form in found if isinstance(form, Variant)]
            missing = [form for form in found if isinstance(form, str)]
            measured = _measure(forms, finished.experiment, rows.test, sizes, seconds)
        record = {
            "device": _device(rows.test[0]),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "variants": [asdict(each) for each in measured],
            "missing": missing,
        }
    finally:
        torch.set_num_threads(before)
    try:
        files.write_json(finished.folder.bench, record)
    finally:  # also what took minutes to measure in a folder that cannot be written to
        if as_json:
            print(files.as_json(record), end="")
        else:
            _show(measured, record)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(item) for item in split_list(text)]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ValueError(f"--batch must be one or more whole numbers above 0, such as 1,64; got {text!r}")
    return sorted(set(sizes))


def _ways(text: str) -> Sequence[str]:
    if text in ("all", "none"):
        return WAYS if text == "all" else ()
    ways = split_list(text)
    if text == QUICK:  # nobody asked for one that is not installed
        return [way for way in ways if way != "openvino" or find_spec("openvino")]
    if not ways or not set(ways) <= set(WAYS):
        raise ValueError(f"--backends must be all, none, or names among {', '.join(WAYS)}; got {text!r}")
    return ways


def _rows(x: InputRows, count: int) -> Tensor:
    return x[torch.arange(count, device=x.device) % len(x)]


def _measure(
    forms: Sequence[Variant],
    experiment: Experiment,
    test: tuple[InputRows, Tensor],
    sizes: Sequence[int],
    seconds: float,
) -> list[Measured]:
    models = {form.name: form.build() for form in forms}
    judged = {form.name: _judged(models[form.name], form, experiment, test) if form.judged else None for form in forms}
    found = []
    for count in sizes:
        inputs = {form.name: form.given(_rows(test[0], count)) for form in forms}
        times = latencies(models, inputs, seconds)
        for form in forms:
            took, quality = times[form.name], judged[form.name]
            found.append(
                Measured(
                    form.name,
                    count,
                    median_ms=1e3 * took.median,
                    spread_ms=1e3 * took.spread,
                    rows_per_second=count / took.median,
                    peak_memory=None if form.bytes is None else peak_memory(form.build, inputs[form.name]),
                    file_bytes=form.bytes,
                    error=None if quality is None else quality.error,
                    loss=None if quality is None else quality.loss,
                )
            )
    return found


def _judged(model: nn.Module, form: Variant, experiment: Experiment, test: tuple[InputRows, Tensor]) -> Evaluation:
    x, y = test
    with torch.inference_mode():
        parts = [outputs_of(model, form.given(x[some])) for some in evaluation_batches(x)]
        return evaluate_outputs(torch.cat(parts).float(), experiment.loss, y)


def _device(x: InputRows) -> str:
    return str(x.device) if x.device.type == "cpu" else torch.cuda.get_device_name(x.device)


def _show(measured: Sequence[Measured], record: dict[str, Any]) -> None:
    sizes = sorted({each.batch for each in measured})
    forms = {name: {m.batch: m for m in measured if m.name == name} for name in dict.fromkeys(m.name for m in measured)}
    dense = next(iter(forms.values()))
    last = sizes[-1]
    speed = []
    for name, own in forms.items():
        pairs = ((_time(own[count]), _speed(dense[count], own[count])) for count in sizes)
        speed.append([name, *(cell for pair in pairs for cell in pair), f"{own[last].rows_per_second:,.0f}"])
    heads = [head for count in sizes for head in (f"batch {count}, ms", "speed")]
    screen.console.tabulate(screen.columns(["", *heads, "rows/s"], speed))
    screen.say("")
    quality = "test error" if any(each.error is not None for each in measured) else "test loss"
    taken = [[name, _bytes(own[last].peak_memory), _bytes(own[last].file_bytes), _quality(own[last])]
             for name, own in forms.items()]  # fmt: skip
    screen.console.tabulate(screen.columns(["", "peak memory", "file", quality], taken))
    threads = f"{record['threads']} thread{'s' * (record['threads'] > 1)}"
    screen.say(
        f"\nMedians on {record['device']} with {threads}, ± half of the interquartile range. The speed is relative to "
        f"dense; ≈ 1 is a difference inside the noise. Rows per second and peak memory are for batch {last}."
    )
    for why in record["missing"]:
        screen.say(f"not measured: {why}")


def _bytes(count: int | None) -> str:
    return "–" if count is None else byte_size(count)


def _time(each: Measured) -> str:
    digits = 3 if each.median_ms < 1 else 2 if each.median_ms < 10 else 1
    return f"{each.median_ms:.{digits}f} ± {each.spread_ms / 2:.{digits}f}"


def _speed(dense: Measured, each: Measured) -> str:
    """Return the speed relative to dense; a difference inside the noise is not a number."""
    noise = (dense.spread_ms + each.spread_ms) / 2
    if each is not dense and abs(dense.median_ms - each.median_ms) <= noise:
        return "≈ 1×"
    return f"{dense.median_ms / each.median_ms:.2f}×"


def _quality(each: Measured) -> str:
    if each.error is not None:
        return f"{100 * each.error:.2f} %"
    return "–" if each.loss is None else f"{each.loss:.4f}"
