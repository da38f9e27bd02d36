"""The growth of the processor time of each stage with the size of its input, and the exponents.

    compaction-by-layers       residual blocks of two linear layers of 16 units, half of the hidden units gone
    compaction-by-weights      two hidden layers of the same width, half of the units gone: its square are the weights
    path-by-points-of-lambda   a step of training for each point, which are spaced by λ
    path-by-points-of-density  the same, spaced by density
    report-by-tensors          a model of so many linear layers
    csv-, parquet-by-rows      20 columns, a tenth of the numbers missing
    csv-, parquet-by-columns   200 rows

Each stage runs on at least four sizes, from small to large and back, in this process; the time of a size is the least
of its rounds. The exponent is that of a straight line through the logarithms, and so is that of the larger half of the
sizes, which a constant part of the time makes smaller by less.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --stages report-by-tensors --scale 0.01 --rounds 1
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.path import Grid, Recipe, follow
from torchlasso.training.plan import Plan

Work = Callable[[], object]
COLUMNS, ROWS = 20, 200


class Block(nn.Module):
    """A residual block of two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu()) / 8  # (n, width)


@torch.no_grad()
def _halved(*layers: nn.Module) -> None:
    """Make the first half of the units of linear layers zero."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            layer.weight[: layer.out_features // 2] = 0
            layer.bias[: layer.out_features // 2] = 0


@contextmanager
def deep(layers: int) -> Iterator[Work]:
    model = nn.Sequential(*(Block(16) for _ in range(max(1, layers // 2))))
    _halved(*(block.up for block in model if isinstance(block, Block)))
    yield lambda: tl.compact(model, torch.randn(2, 16))


@contextmanager
def wide(weights: int) -> Iterator[Work]:
    width = max(2, int(weights**0.5))
    model = nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    _halved(model[0], model[2])
    yield lambda: tl.compact(model, torch.randn(2, 16))


@contextmanager
def many_tensors(tensors: int) -> Iterator[Work]:
    model = nn.Sequential(*(nn.Linear(32, 32, bias=False) for _ in range(max(1, tensors))))
    groups = tl.param_groups(model, tl.L1(), lam=0.1)
    yield lambda: str(tl.report(model, groups))


def _path(grid: Grid) -> Work:
    torch.manual_seed(0)
    x = torch.randn(64, 20)
    rows = (x, x[:, :3].sum(dim=1, keepdim=True) + 0.1 * torch.randn(64, 1))
    recipe = Recipe(
        grid,
        groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=0.01),
        loss=nn.functional.mse_loss,
        dense=Plan(20, batch_size=64),
        each=Plan(1, batch_size=64),
    )
    return lambda: list(follow(nn.Sequential(nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 1)), recipe, rows))


@contextmanager
def by_lambda(points: int) -> Iterator[Work]:
    yield _path(Grid(max(2, points), lams=(1e-5, 1e-2)))


@contextmanager
def by_density(points: int) -> Iterator[Work]:
    yield _path(Grid(max(2, points), sparsest=0.9))


@contextmanager
def _table(rows: int, columns: int, kind: str) -> Iterator[Work]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns))
    x[rng.random(x.shape) < 0.1] = np.nan
    table = pa.table({f"c{i}": pa.array(x[:, i], from_pandas=True) for i in range(columns)})
    table = table.append_column("y", pa.array(rng.standard_normal(rows)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"table.{kind}"
        (pyarrow.csv.write_csv if kind == "csv" else pyarrow.parquet.write_table)(table, file)
        yield lambda: tl.data.load(str(file))


@dataclass(frozen=True)
class Stage:
    """A stage: a context in which the work of a size can be done, and its sizes."""

    prepared: Callable[[int], object]
    sizes: tuple[int, ...]


STAGES = {
    "compaction-by-layers": Stage(deep, (100, 200, 500, 1_000, 2_000)),
    "compaction-by-weights": Stage(wide, (250_000, 1_000_000, 4_000_000, 16_000_000)),
    "path-by-points-of-lambda": Stage(by_lambda, (20, 40, 80, 160, 320)),
    "path-by-points-of-density": Stage(by_density, (20, 40, 80, 160, 320)),
    "report-by-tensors": Stage(many_tensors, (100, 300, 1_000, 3_000)),
    "csv-by-rows": Stage(lambda n: _table(max(20, n), COLUMNS, "csv"), (10_000, 30_000, 100_000, 300_000)),
    "csv-by-columns": Stage(lambda n: _table(ROWS, max(1, n), "csv"), (300, 1_000, 3_000, 10_000)),
    "parquet-by-rows": Stage(
        lambda n: _table(max(20, n), COLUMNS, "parquet"), (100_000, 300_000, 1_000_000, 2_000_000)
    ),
    "parquet-by-columns": Stage(lambda n: _table(ROWS, max(1, n), "parquet"), (1_000, 3_000, 10_000, 30_000)),
}


def seconds_of(prepared: Callable[[int], object], size: int) -> float:
    """Return the processor time of a stage on a size."""
    with prepared(size) as work:
        start = process_time()
        work()
        return process_time() - start


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of a straight line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'stage':26} {'from':>9} {'to':>11} {'seconds':>14} {'exponent':>8}  of the larger half")
    for name in options.stages:
        stage = STAGES[name]
        sizes = sorted({max(2, int(size * options.scale)) for size in stage.sizes})
        seconds_of(stage.prepared, sizes[0])  # what is imported and compiled once
        rounds = [sizes[:: 1 if turn % 2 else -1] for turn in range(options.rounds)]
        found = [[seconds_of(stage.prepared, size) for size in turn] for turn in rounds]
        least = [min(each[turn.index(size)] for turn, each in zip(rounds, found, strict=True)) for size in sizes]
        half = len(sizes) // 2
        both = (f"{exponent(sizes[start:], least[start:]):8.2f}" for start in (0, half) if len(sizes) > 1)
        print(f"{name:26} {sizes[0]:9,} {sizes[-1]:11,} {least[0]:6.3f} {least[-1]:7.3f} {'  '.join(both)}", flush=True)


if __name__ == "__main__":
    main()
