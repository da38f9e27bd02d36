"""Time and memory of compaction at real sizes: ResNet-50, BERT-base, GPT-2 small and ViT-B.

The weights are random. Half of the rows of every hidden layer (convolutions and linear layers but the last) are zero,
with their biases and the scales and shifts of a batch norm behind them. Each model has a process of its own. In it a
small model is compacted first, so that what Python imports is not counted; then the peak of the resident memory (as
Linux counts it) during ``compact`` is set against the memory that the process had before, in multiples of what the
model's parameters and buffers take. The smaller model that is returned is part of that peak. Seconds are those of the
clock and those of all threads together.

    python benchmarks/compaction_memory.py
    python benchmarks/compaction_memory.py --only ViT-B --dtype bfloat16
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from networks import resnet_50
from torch import nn

import torchlasso as tl


def bert() -> tuple[nn.Module, Any]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig()
    return BertForSequenceClassification(config), {"input_ids": torch.randint(0, config.vocab_size, (2, 32))}


def gpt2() -> tuple[nn.Module, Any]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False)
    return GPT2LMHeadModel(config), {"input_ids": torch.randint(0, config.vocab_size, (2, 32))}


def vit() -> tuple[nn.Module, Any]:
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=1000)), torch.randn(1, 3, 224, 224)


MODELS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    "ResNet-50": lambda: (resnet_50(), torch.randn(1, 3, 224, 224)),
    "BERT-base": bert,
    "GPT-2 small": gpt2,
    "ViT-B": vit,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--here", action="store_true", help="in this process, where it is fresh; needs --only")
    arguments = parser.parse_args()
    if arguments.here:
        print(measure(arguments.only, getattr(torch, arguments.dtype), arguments.threads), flush=True)
        return
    print("| model | size | parameters left | seconds | seconds of all threads | peak above before, in model sizes |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in [arguments.only] if arguments.only else MODELS:
        given = ["--here", "--only", name, "--dtype", arguments.dtype, "--threads", str(arguments.threads)]
        subprocess.run([sys.executable, __file__, *given], check=True)


@torch.no_grad()
def kill_rows_(model: nn.Module) -> None:
    """Set half of the rows of every hidden layer to zero, with their scales and shifts in a batch norm behind it."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d) or type(m).__name__ == "Conv1D"]
    dead: dict[int, torch.Tensor] = {}
    for layer in layers[:-1]:
        rows = layer.weight.T if type(layer).__name__ == "Conv1D" else layer.weight
        half = torch.randperm(len(rows))[: len(rows) // 2]
        rows[half] = 0
        dead[id(layer)] = half
        if layer.bias is not None:
            layer.bias[half] = 0
    for one, other in zip(model.modules(), list(model.modules())[1:], strict=False):
        if isinstance(other, nn.BatchNorm2d) and id(one) in dead:
            other.weight[dead[id(one)]] = 0
            other.bias[dead[id(one)]] = 0


def resident(key: str) -> int:
    """Return the bytes of this process in memory: ``VmRSS`` now, ``VmHWM`` at most since the peak was reset."""
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0


def bytes_of(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def measure(name: str, dtype: torch.dtype, threads: int) -> str:
    """Return a row of the table."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    tl.compact(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)), torch.randn(2, 2))
    model, inputs = MODELS[name]()
    model = model.to(dtype).eval()
    kill_rows_(model)
    if isinstance(inputs, torch.Tensor):
        inputs = inputs.to(dtype)
    whole, before = bytes_of(model), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    clock, work = time.perf_counter(), time.process_time()
    small = tl.compact(model, inputs)
    clock, work = time.perf_counter() - clock, time.process_time() - work
    peak = resident("VmHWM") - before
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
    return f"| {name} | {whole / 1e6:.0f} MB | {100 * left:.1f} % | {clock:.1f} | {work:.1f} | {peak / whole:.1f} |"


if __name__ == "__main__":
    main()
