"""The speed of inference with zeros on this machine: ``accelerate`` beside the dense layer or model.

After ``accelerate`` has chosen, both are timed in turn within one process; the ratio is the median of the ratios within
a round. With one thread times are those of the thread, so that what else the machine does does not count.

Linear layers and convolutions have random weights, a share of which is zero: single ones, whole rows and columns, or
blocks of 16×16. Models have random weights with single zeros in all their layers, and are not compacted.

    python benchmarks/inference.py linear
    python benchmarks/inference.py convolution
    python benchmarks/inference.py models --zeros 0.95

Whole models by all backends, exact ones and int8, for each batch size, half of the units gone and compacted:

    python benchmarks/inference.py backends --batches 1 16

On a GPU that multiplies by two of each four weights, what that brings to linear layers in float16 and bfloat16:

    python benchmarks/inference.py two-of-four
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from compaction import zero_units_
from networks import resnet_50
from torch import Tensor, nn

import torchlasso as tl
from torchlasso import models as zoo
from torchlasso._core.running import as_arguments
from torchlasso._core.timing import clock
from torchlasso.inference.backends import backends as known_backends

ROUNDS = 15
CALLS = 20  # in a row on a GPU, which is not waited for after each
HEAD = "| {} | zeros | batch | dense, ms | runs as | ms | times as fast |\n|---|---|---|---|---|---|---|"
# Channels in and out, pixels along a side, and along a side of the kernel.
CONVOLUTIONS = [(256, 256, 14, 3), (512, 512, 7, 3), (128, 128, 28, 3), (64, 64, 56, 3), (256, 1024, 14, 1)]


def main() -> None:
    parts = {"linear": linear, "convolution": convolution, "models": models}
    parts["two-of-four"] = two_of_four
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*parts, "backends"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--zeros", type=float, nargs="+", default=[0.9, 0.95, 0.98, 0.99], help="shares of the weights")
    parser.add_argument("--batches", type=int, nargs="+", help="1 and 64 for linear layers, else 1 and 8")
    parser.add_argument("--only", nargs="+", default=[], help="the models of backends, all by default")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    if arguments.part == "backends":
        backends(arguments.only, arguments.batches)
    else:
        parts[arguments.part](arguments.zeros, arguments.batches)


def linear(shares: list[float], batches: list[int] | None) -> None:
    print(HEAD.format("4096×4096"))
    for kind in ("single weights", "rows and columns", "blocks"):
        for share in shares:
            layer = zeroed(nn.Linear(4096, 4096), kind, share)
            for batch in batches or (1, 64):
                show(kind, share, layer, torch.randn(batch, 4096))


def convolution(shares: list[float], batches: list[int] | None) -> None:
    print(HEAD.format("convolution"))
    for inputs, outputs, pixels, kernel in CONVOLUTIONS:
        for share in shares:
            layer = zeroed(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), "single weights", share)
            for batch in batches or (1, 8):
                name = f"{kernel}×{kernel}, {inputs}→{outputs}, {pixels}×{pixels}"
                show(name, share, layer, torch.randn(batch, inputs, pixels, pixels))


def models(shares: list[float], batches: list[int] | None) -> None:
    from transformers import GPT2Config, GPT2Model

    cases: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
        "LeNet-300-100": (lambda: zoo.build("lenet-300-100", (1, 28, 28), 10), lambda n: torch.randn(n, 1, 28, 28)),
        "resnet-20": (lambda: zoo.build("resnet-20", (1, 28, 28), 10), lambda n: torch.randn(n, 1, 28, 28)),
        "ResNet-50": (resnet_50, lambda n: torch.randn(n, 3, 224, 224)),
        "GPT-2": (lambda: GPT2Model(GPT2Config(use_cache=False)), lambda n: torch.randint(0, 50257, (n, 64))),
    }
    print(HEAD.format("model"))
    for name, (build, inputs) in cases.items():
        for share in shares:
            model = build()
            for module in model.modules():
                zeroed(module, "single weights", share)
            for batch in batches or (1, 8):
                show(name, share, model, inputs(batch))


def backends(only: list[str], batches: list[int] | None) -> None:
    cases: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        "LeNet-300-100": (lambda: zoo.build("lenet-300-100", (1, 28, 28), 10), torch.randn(64, 1, 28, 28)),
        "cnn": (lambda: zoo.build("cnn", (1, 28, 28), 10), torch.randn(64, 1, 28, 28)),
        "resnet-20": (lambda: zoo.build("resnet-20", (3, 32, 32), 10), torch.randn(64, 3, 32, 32)),
        "ResNet-50": (resnet_50, torch.randn(16, 3, 224, 224)),
    }
    print("| model | batch | backend | ms | times as fast | difference | |\n|---|---|---|---|---|---|---|")
    for name, (build, x) in cases.items():
        if only and name not in only:
            continue
        model = build().eval()
        with torch.no_grad():
            zero_units_(model, x[:2], 0.5)
        tried = [each for each in known_backends() if each != "bfloat16" or torch.cpu._is_avx512_bf16_supported()]
        _, report = tl.accelerate(
            model, x, seconds=20, backends=tried, batch_sizes=batches or (1, 16), tolerance=1, return_report=True
        )
        for each in report.backends:
            ms = "–" if each.milliseconds is None else f"{each.milliseconds:.3g}"
            speed = "–" if each.speed is None else f"{each.speed:.2f}"
            off = "–" if each.difference is None else f"{each.difference:.0e}"
            note = "chosen" if each.chosen else each.why
            print(f"| {name} | {each.batch} | {each.name} | {ms} | {speed} | {off} | {note} |", flush=True)


def two_of_four(shares: list[float], batches: list[int] | None) -> None:
    print(torch.cuda.get_device_name())
    print(HEAD.format("layer"))
    for dtype in (torch.float16, torch.bfloat16):
        for inputs, outputs in ((4096, 4096), (4096, 16384), (8192, 8192)):
            layer = nn.Linear(inputs, outputs).to("cuda", dtype)
            layer.weight.data = tl.L1(over=tl.NM(2, 4)).prox(layer.weight.data, lam=1e6, step=1.0)
            for batch in batches or (4096, 16384, 65536):
                name = f"{inputs}→{outputs}, {str(dtype).removeprefix('torch.')}"
                show(name, 0.5, layer, torch.randn(batch, inputs, device="cuda", dtype=dtype))


@torch.no_grad()
def zeroed(module: nn.Module, kind: str, share: float) -> nn.Module:
    """Set a share of the weights of a layer to zero; other modules stay unchanged."""
    w = getattr(module, "weight", None)
    if not isinstance(w, Tensor) or w.dim() < 2 or isinstance(module, nn.Embedding):
        return module

    def there(share: float, *shape: int) -> Tensor:
        return torch.rand(shape) >= share

    if kind == "single weights":
        w.mul_(there(share, *w.shape))
    elif kind == "rows and columns":
        each = 1 - (1 - share) ** 0.5
        w.mul_(there(each, len(w), 1) & there(each, 1, w.shape[1]))
    else:
        w.mul_(there(share, len(w) // 16, w.shape[1] // 16).repeat_interleave(16, 0).repeat_interleave(16, 1))
    return module


def show(name: str, share: float, model: nn.Module, inputs: Any) -> None:
    """Print a row of the table."""
    fast, report = tl.accelerate(model, inputs, compact_first=False, return_report=True)
    ways = [layer.execution for layer in report.layers]
    runs = ways[0] if len(ways) == 1 else f"{len(ways) - ways.count('dense')} of {len(ways)} layers sparse"
    dense, ours, ratio = latencies(model.eval(), fast, inputs)
    batch = len(as_arguments(inputs)[0][0])
    zeros = f"{100 * share:.0f} %"
    cells = [name, zeros, f"{batch}", f"{1000 * dense:.3g}", runs, f"{1000 * ours:.3g}", f"**{ratio:.2f}**"]
    print(f"| {' | '.join(cells)} |", flush=True)


@torch.no_grad()
def latencies(dense: nn.Module, fast: nn.Module, inputs: Any) -> tuple[float, float, float]:
    """Return the median seconds of each, measured in turns, and the median speedup of the second."""
    args, kwargs = as_arguments(inputs)
    device = next(dense.parameters()).device
    now, calls = clock(device), CALLS if device.type == "cuda" else 1
    times: tuple[list[float], list[float]] = ([], [])
    for run in range(ROUNDS + 2):
        for model, found in zip((dense, fast), times, strict=True):
            start = now()
            for _ in range(calls):
                model(*args, **kwargs)
            if run >= 2:
                found.append((now() - start) / calls)
    ratios = [a / b for a, b in zip(*times, strict=True)]
    return statistics.median(times[0]), statistics.median(times[1]), statistics.median(ratios)


if __name__ == "__main__":
    main()
