"""Stability selection on simulated data: realised false discovery rate and power, beside other ways.

    python benchmarks/stability.py --sets 100            # all of it: half an hour for each design
    python benchmarks/stability.py --designs noise --ways networks
    python benchmarks/stability.py --table

Protocol. The features are Gaussian, in blocks of 5 with correlation 0.5 within a block. In each data set, 10 blocks and
one feature of each are drawn; these 10 matter, and their 4 neighbours do not. The target is the sum of seven terms of
the same variance, of which two are products of two features without effects of their own,

    a·b + c·d + sin(2e) + |f| + tanh(2(g + h)) + i + j,

plus normal noise, a quarter of the variance. Designs: "main" has 800 rows and 50 features; "wide" has 500 rows and 100
features; "noise" is as "main", with a target of noise. Features and target are scaled to mean 0 and variance 1. Every
way sees the same data, and has 50 pairs of halves (100 models) and the wanted rate 0.1; all else is its default. Seed s
gives data set s; all choices were made on seeds from 1000 on.

Ways: "networks", "linear" and "trees" are StabilitySelection with its default networks, with linear models, and with
100 extremely randomised trees; "ipss" is the package of this name with gradient boosting (pip install ipss xgboost);
"lassonet" is StabilitySelection with the order in which features leave the path of the package of this name. Each
result is a line of benchmarks/results/stability.jsonl; those that are there are not computed again.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import ExtraTreesRegressor

from torchlasso.estimators import SparseRegressor, StabilitySelection

RESULTS = Path(__file__).parent / "results" / "stability.jsonl"
DESIGNS = {"main": (800, 50), "wide": (500, 100), "noise": (800, 50)}
BLOCK, CORRELATION, TRUE, NOISE = 5, 0.5, 10, 0.25
PAIRS, RATE = 50, 0.1
Numbers = np.ndarray[Any, Any]


def data(design: str, seed: int) -> tuple[Numbers, Numbers, Numbers]:
    """Return features, targets, and a mask of the features that matter."""
    rng, (n, p) = np.random.default_rng(seed), DESIGNS[design]
    shared, own = rng.normal(size=(n, p // BLOCK, 1)), rng.normal(size=(n, p // BLOCK, BLOCK))
    x = (CORRELATION**0.5 * shared + (1 - CORRELATION) ** 0.5 * own).reshape(n, p)
    matter = rng.permutation(p // BLOCK)[:TRUE] * BLOCK + rng.integers(BLOCK, size=TRUE)
    a, b, c, d, e, f, g, h, i, j = x[:, matter].T
    terms = [a * b, c * d, np.sin(2 * e), np.abs(f), np.tanh(2 * (g + h)), i, j]
    signal = sum(scaled(term) for term in terms)
    y, mask = scaled(signal) * (1 - NOISE) ** 0.5 + NOISE**0.5 * rng.normal(size=n), np.zeros(p, dtype=bool)
    if design == "noise":
        y = rng.normal(size=n)
    else:
        mask[matter] = True
    return scaled(x), scaled(y), mask


def scaled(values: Numbers) -> Numbers:
    """Return values with mean 0 and variance 1, each column by itself."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def ours(estimator: Any, x: Numbers, y: Numbers, seed: int) -> Numbers:
    return StabilitySelection(estimator, pairs=PAIRS, random_state=seed).fit(x, y).q_values_


def by_ipss(x: Numbers, y: Numbers, seed: int) -> Numbers:
    from ipss import ipss

    np.random.seed(seed)  # it draws from the global generator
    found = ipss(x, y, selector="gb", B=PAIRS)["q_values"]
    return np.array([found[feature] for feature in range(x.shape[1])])


def by_lassonet(x: Numbers, y: Numbers, seed: int) -> Numbers:
    from lassonet import LassoNetRegressor
    from sklearn.base import BaseEstimator

    class Importances(BaseEstimator):
        """The λ at which each feature leaves LassoNet's path."""

        def __init__(self, random_state: int | None = None) -> None:
            self.random_state = random_state

        def fit(self, x: Numbers, y: Numbers) -> Importances:
            model = LassoNetRegressor(random_state=self.random_state, torch_seed=self.random_state, verbose=0)
            model.path(x.astype(np.float32), y.astype(np.float32), return_state_dicts=False)
            self.feature_importances_ = model.feature_importances_.numpy()
            return self

    return ours(Importances(), x, y, seed)


WAYS = {
    "networks": lambda x, y, seed: ours(None, x, y, seed),
    "linear": lambda x, y, seed: ours(SparseRegressor(hidden=()), x, y, seed),
    "trees": lambda x, y, seed: ours(ExtraTreesRegressor(100), x, y, seed),
    "ipss": by_ipss,
    "lassonet": by_lassonet,
}


def measure(design: str, way: str, seed: int) -> dict[str, Any]:
    x, y, mask = data(design, seed)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        selected = WAYS[way](x, y, seed) <= RATE
    seconds = round(time.perf_counter() - start, 2)
    true = int((selected & mask).sum())
    return {"design": design, "way": way, "seed": seed, "true": true, "false": int(selected.sum()) - true, "s": seconds}


def table(lines: list[dict[str, Any]]) -> None:
    print("| design | way | data sets | false discovery rate | power | nothing selected | seconds |")
    print("|---|---|---|---|---|---|---|")
    for design in DESIGNS:
        for way in WAYS:
            rows = [line for line in lines if (line["design"], line["way"]) == (design, way)]
            if not rows:
                continue
            true, false, seconds = (np.array([row[name] for row in rows]) for name in ("true", "false", "s"))
            shares = false / np.maximum(true + false, 1)
            error = shares.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else float("nan")
            power = "" if design == "noise" else f"{true.mean() / TRUE:.3f}"
            print(
                f"| {design} | {way} | {len(rows)} | {shares.mean():.3f} ± {error:.3f} | {power} "
                f"| {int((true + false == 0).sum())} | {np.median(seconds):.1f} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=100)
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=list(DESIGNS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["networks", "linear", "ipss"])
    parser.add_argument("--table", action="store_true", help="only print the table of the results that are there")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    done = {(line["design"], line["way"], line["seed"]) for line in lines}
    for design in () if args.table else args.designs:
        for seed in range(args.sets):
            for way in args.ways:
                if (design, way, seed) not in done:
                    lines.append(measure(design, way, seed))
                    with args.out.open("a") as file:
                        file.write(json.dumps(lines[-1]) + "\n")
    table(lines)


if __name__ == "__main__":
    main()
