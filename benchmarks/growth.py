"""Feature selection by the size of the table: the time of every way, what it finds, and how the time grows.

Standard normal features, of which 20 matter, with coefficients of ±1; the target is their sum plus noise of variance 5
(a signal-to-noise ratio of 4), or for classes its sign. The ways:

    lasso       SparseRegressor and SparseClassifier without hidden layers, for exactly 20 features
    network     the same with 16 hidden units, 30 epochs
    default     SparseRegressor(features=20), and the same under MCP
    stability   StabilitySelection of linear models with a false discovery rate of 0.1, 25 pairs of halves
    selector    FeatureSelector by five-fold cross-validation, linear, the rule of one standard error
    lassonet    LassoNetRegressor.path (Lemhadri et al. 2021), M = 10, 16 hidden units, its other defaults
    sklearn     LassoCV of scikit-learn, five folds, 20 values of λ

    python benchmarks/growth.py --ways lasso network stability selector sklearn --sizes 1000x30000
    python benchmarks/growth.py --ways network lassonet --sizes 1000x1000
    python benchmarks/growth.py --ways default "default, mcp" --sizes 1000x300 --repeats 3
    python benchmarks/growth.py --ways lasso network --sizes 1000x15000 1000x30000 1000x60000 1000x120000 --repeats 3
    python benchmarks/growth.py --ways lasso network --sizes 1000x5000 2000x5000 4000x5000 8000x5000 --repeats 3

Every result is appended to --out: the seconds that passed, those of processors (of all threads together), and how many
of the 20 features were found, and false ones. The exponents of the processor time over features and over rows are those
of a straight line through the logarithms.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LassoCV

from torchlasso.estimators import FeatureSelector, SparseClassifier, SparseRegressor, StabilitySelection

Numbers = np.ndarray[Any, Any]
TRUE = 20


def table(rows: int, features: int, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return the rows, their targets, and a mask of the features that matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features), dtype=np.float32)
    matters = np.zeros(features, dtype=bool)
    matters[rng.choice(features, TRUE, replace=False)] = True
    y = x[:, matters] @ rng.choice([-1.0, 1.0], TRUE) + 5**0.5 * rng.standard_normal(rows)
    return x, y, matters


def _support(model: Any, x: Numbers, y: Numbers) -> Numbers:
    return np.asarray(model.fit(x, y).support_)


def _lassonet(x: Numbers, y: Numbers) -> Numbers:
    from lassonet import LassoNetRegressor

    path = LassoNetRegressor(hidden_dims=(16,), M=10, random_state=0, torch_seed=0, verbose=0).path(
        x, y.astype(np.float32), return_state_dicts=False
    )
    entries = {int(point.selected.sum()): point.selected.cpu().numpy() for point in path}
    return np.asarray(entries[min((number for number in entries if number >= TRUE), default=max(entries))])


NETWORK: dict[str, Any] = {"hidden": (16,), "epochs": 30, "points": 1, "random_state": 0, "features": TRUE}
LINEAR: dict[str, Any] = {"hidden": (), "points": 1, "features": TRUE, "tol": 1e-6}
WAYS: dict[str, Callable[[Numbers, Numbers], Numbers]] = {
    "lasso": lambda x, y: _support(SparseRegressor(**LINEAR), x, y),
    "lasso, classes": lambda x, y: _support(SparseClassifier(**LINEAR), x, y > 0),
    "network": lambda x, y: _support(SparseRegressor(**NETWORK), x, y / y.std()),
    "network, classes": lambda x, y: _support(SparseClassifier(**NETWORK), x, y > 0),
    "default": lambda x, y: _support(SparseRegressor(features=TRUE, points=1, random_state=0), x, y / y.std()),
    "default, mcp": lambda x, y: _support(
        SparseRegressor(features=TRUE, penalty="mcp", points=1, random_state=0), x, y / y.std()
    ),
    "stability": lambda x, y: _support(
        StabilitySelection(SparseRegressor(hidden=(), tol=1e-4), pairs=25, random_state=0), x, y
    ),
    "selector": lambda x, y: (
        FeatureSelector(SparseRegressor(hidden=(), points=1, tol=1e-4, relaxed=True)).fit(x, y).get_support()
    ),
    "lassonet": _lassonet,
    "sklearn": lambda x, y: np.asarray(LassoCV(alphas=20, cv=5).fit(x, y).coef_ != 0),
}
PACKAGES = {"lassonet": "lassonet"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sizes", nargs="+", default=["1000x30000"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1, help="the number of tables of each size")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/growth.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    times: dict[str, list[tuple[int, int, float]]] = {}
    for size, seed in product(options.sizes, range(options.seed, options.seed + options.repeats)):
        rows, features = map(int, size.split("x"))
        x, y, matters = table(rows, features, seed)
        for way in options.ways:
            if find_spec(PACKAGES.get(way, "torchlasso")) is None:
                print(f"{way} is not installed")
                continue
            start, processor = perf_counter(), process_time()
            support = WAYS[way](x, y)
            seconds, processor = perf_counter() - start, process_time() - processor
            found = {"way": way, "rows": rows, "features": features, "seed": seed, "threads": options.threads}
            found |= {"true": int(support[matters].sum()), "false": int(support[~matters].sum()), "seconds": seconds}
            found |= {"processor_seconds": processor}
            times.setdefault(way, []).append((rows, features, processor))
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
    for way, each in times.items():
        for axis, name in enumerate(("rows", "features")):
            sizes = [point[axis] for point in each]
            if len(set(sizes)) == len(options.sizes) > 1:
                exponent = np.polyfit(np.log(sizes), np.log([point[2] for point in each]), 1)[0]
                print(f"{way}: time grows with {name} to the power {exponent:.2f}")


if __name__ == "__main__":
    main()
