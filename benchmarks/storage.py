"""Files of sparse models: how large they are, how long they take, and what becomes of altered ones.

All that is random has a seed. There are three parts:

    sizes   a tensor in a file of torchlasso.save, as a ratio to its entropy bound (nonzeros × value bits +
            N·H(density)), with zeros anywhere; the largest of so many draws. "file": with the header. Beside it the
            files that scipy.sparse.save_npz (compressed CSR) and numpy.savez_compressed (zlib) make of the same
            tensor. Last, lenet-300-100 with 99 % zeros, against its dense file
    speed   saving and loading a float32 matrix, as a ratio to safetensors.torch's save_model and load_model on the
            dense one, within one process: a round does each once, in an order drawn anew; a time is the median over
            the rounds, a ratio the median of the ratios within a round. The peers are those of the sizes, and
            numpy.packbits with the nonzeros, uncompressed. Every way ends with the weights in a torch model
    fuzz    what becomes of altered files, as tests/storage/test_damaged_files.py alters and checks them: anything but
            a clear refusal or the same tensors is an error, and so is memory beyond a few times the file

    python benchmarks/storage.py sizes
    python benchmarks/storage.py speed                                  # 100 million weights: --columns 100000
    python benchmarks/storage.py fuzz --alterations 10000
"""

from __future__ import annotations

import argparse
import math
import operator
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch
from safetensors import safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.models import build

DENSITIES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.25, 0.3, 0.38, 0.5)
WIDTHS = {"float32": None, "bfloat16 values": torch.bfloat16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("sizes", "speed", "fuzz"))
    parser.add_argument("--draws", type=int, default=5, help="of the places of the zeros, for each size")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--columns", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--alterations", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        match arguments.part:
            case "sizes":
                sizes(folder, arguments.draws)
                lenet(folder)
            case "speed":
                speed(folder, arguments.rows, arguments.columns, arguments.rounds)
            case "fuzz":
                fuzz(folder, arguments.alterations)


def layer(rows: int, columns: int, density: float, seed: int = 0) -> nn.Linear:
    """Return normal weights with a share of nonzeros at random positions."""
    made = nn.Linear(columns, rows, bias=False)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        made.weight.normal_(generator=generator)
        made.weight.masked_fill_(torch.rand(rows, columns, generator=generator) >= density, 0)
    return made


def bound(w: Tensor, bits: int) -> float:
    """Bytes."""
    n, count = w.numel(), int(w.count_nonzero())
    entropy = -sum(share * math.log2(share) for share in (count / n, 1 - count / n) if share)
    return (count * bits + n * entropy) / 8


def sizes(folder: Path, draws: int) -> None:
    print("| weights | values | density | tensor to bound | file to bound | save_npz | savez_compressed |")
    print("|---|---|---|---|---|---|---|")
    for rows, columns in ((100, 101), (300, 784), (1000, 1000)):
        for label, values in WIDTHS.items():
            for density in DENSITIES:
                ratios = [ratios_of(folder, layer(rows, columns, density, seed), values) for seed in range(draws)]
                worst = [f"{max(some):.3f}" if some[0] else "" for some in zip(*ratios, strict=True)]
                print("|", " | ".join([f"{rows * columns:,}", label, f"{density:.1%}", *worst]), "|", flush=True)


def ratios_of(folder: Path, model: nn.Linear, values: torch.dtype | None) -> list[float]:
    w, path = model.weight.detach(), folder / "ours"
    least = bound(w, 8 * (values or w.dtype).itemsize)
    tl.save(model, path, values=values)
    with safe_open(path, framework="pt") as file:
        tensor = file.get_tensor("weight").nbytes
    if values:  # numpy has no bfloat16
        return [tensor / least, path.stat().st_size / least, 0, 0]
    scipy.sparse.save_npz(folder / "csr.npz", scipy.sparse.csr_array(w.numpy()))
    np.savez_compressed(folder / "zlib.npz", w=w.numpy())
    return [size / least for size in (tensor, *((folder / n).stat().st_size for n in ("ours", "csr.npz", "zlib.npz")))]


def lenet(folder: Path) -> None:
    torch.manual_seed(0)
    net = build("lenet-300-100", (1, 28, 28), 10)
    weights = [w for w in net.parameters() if w.dim() > 1]
    with torch.no_grad():
        for w in weights:
            w.masked_fill_(torch.rand(w.shape) < 0.99, 0)
    save_file(net.state_dict(), folder / "dense")
    dense = (folder / "dense").stat().st_size
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    print(f"\nlenet-300-100 with {zeros:.2%} zeros; the dense file has {dense:,} bytes")
    for label, values in WIDTHS.items():
        tl.save(net, folder / "ours", values=values)
        size = (folder / "ours").stat().st_size
        print(f"{label}: {size:,} bytes, {size / dense:.2%} of the dense file")


class Way(NamedTuple):
    """A way to store a layer, to be timed."""

    save: Callable[[nn.Linear, Path], object]
    load: Callable[[Path, nn.Linear], object]


def dense_from(load: Callable[[Path], np.ndarray]) -> Callable[[Path, nn.Linear], object]:
    @torch.no_grad()
    def into(path: Path, model: nn.Linear) -> object:
        return model.weight.copy_(torch.from_numpy(load(path)))

    return into


def save_bitmask(model: nn.Linear, path: Path) -> None:
    w = model.weight.detach().numpy()
    mask = w != 0
    np.savez(path, shape=w.shape, mask=np.packbits(mask), values=w[mask])


def load_bitmask(path: Path) -> np.ndarray:
    with np.load(path) as file:
        shape, packed, values = file["shape"], file["mask"], file["values"]
    w = np.zeros(shape, values.dtype)
    w[np.unpackbits(packed, count=w.size).view(bool).reshape(shape)] = values
    return w


def load_zlib(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["w"]


WAYS = {
    "safetensors, dense": Way(save_model, lambda path, model: load_model(model, path)),
    "torchlasso": Way(tl.save, lambda path, model: tl.load(path, into=model)),
    "numpy bitmask": Way(save_bitmask, dense_from(load_bitmask)),
    "scipy save_npz": Way(
        lambda model, path: scipy.sparse.save_npz(path, scipy.sparse.csr_array(model.weight.detach().numpy())),
        dense_from(lambda path: scipy.sparse.load_npz(path).toarray()),
    ),
    "numpy savez_compressed": Way(
        lambda model, path: np.savez_compressed(path, w=model.weight.detach().numpy()), dense_from(load_zlib)
    ),
}


def speed(folder: Path, rows: int, columns: int, rounds: int) -> None:
    print(f"{rows * columns:,} weights")
    print("| density | way | bytes | save, s | ratio | load, s | ratio |\n|---|---|---|---|---|---|---|")
    order = random.Random(0)
    for density in (0.01, 0.1, 0.5):
        model, other = layer(rows, columns, density), nn.Linear(columns, rows, bias=False)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
        for turn in range(rounds + 1):
            for name in order.sample(list(WAYS), len(WAYS)):
                path = folder / f"{name}.npz"
                saving = clock(WAYS[name].save, model, path)
                nn.init.ones_(other.weight)
                loading = clock(WAYS[name].load, path, other)
                assert torch.equal(model.weight, other.weight), name
                if turn:  # the first is to warm up
                    times[name].append((saving, loading))
        for name, some in times.items():
            cells = [f"{density:.0%}", name, f"{(folder / f'{name}.npz').stat().st_size:,}"]
            for own, base in zip(zip(*some, strict=True), zip(*times["safetensors, dense"], strict=True), strict=True):
                cells += [f"{median(own):.3f}", f"{median(map(operator.truediv, own, base)):.2f}"]
            print("|", " | ".join(cells), "|", flush=True)


def clock(action: Callable[..., object], *arguments: object) -> float:
    before = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - before


def fuzz(folder: Path, alterations: int) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "storage"))
    import test_damaged_files as damaged
    from hypothesis import given, settings

    whole, counts = damaged.written(folder), Counter()

    @settings(max_examples=alterations, deadline=None, derandomize=True, database=None)
    @given(damaged.alterations())
    def run(altered: Callable[[bytes], bytes]) -> None:
        counts[damaged.check(folder / "altered.safetensors", altered(whole))] += 1

    damaged.check(folder / "altered.safetensors", whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = clock(run)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{counts.total():,} altered files, {seconds:.0f} s; {grown:.0f} MB more in memory, with hypothesis' records")
    for outcome, count in counts.most_common():
        print(f"{outcome}: {count:,}")


if __name__ == "__main__":
    main()
