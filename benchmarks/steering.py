"""Does a target for the zeros land, and what does it cost against a fixed λ? MNIST, three networks, five targets.

For each network and seed: one training for every target with λ steered (TargetSparsity, from λ = 1e-4 whatever the
target), and one for every λ of a grid that is held fixed. The error of "a fixed λ that ends at that sparsity" is
interpolated between the two neighbours of the grid, in log odds of the zeros. All else is the same: L1, Adam, cosine,
the same epochs. Each run is appended to ``--out``, and not made again. ``--held`` judges on 10,000 of the training
images, which is how the controller's constants were chosen; without it on the test images.

    python benchmarks/steering.py --data FOLDER_WITH_MNIST --model lenet-300-100
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from frontier import Dressed, Rows, read
from torch import nn

import torchlasso as tl
from torchlasso import models
from torchlasso.training.evaluation import evaluate
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer, sparsity

TARGETS = (0.8, 0.9, 0.95, 0.98, 0.99)
SEEDS = (0, 1, 2)
EPOCHS = {"lenet-300-100": 20, "lenet-5": 8, "cnn": 6}
GRIDS = {  # λ that lead from fewer zeros than the first target to more than the last
    "lenet-300-100": (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
    "lenet-5": (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3),
    "cnn": (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", choices=EPOCHS, default="lenet-300-100")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--targets", type=float, nargs="+", default=TARGETS)
    parser.add_argument("--held", action="store_true", help="judge on held out training images")
    parser.add_argument("--out", default="runs/steering.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    epochs = arguments.epochs or EPOCHS[arguments.model]
    rows, judge = read(arguments.data, arguments.held)
    found: dict[float, list[tuple[float, float, float]]] = {target: [] for target in arguments.targets}
    for seed in arguments.seeds:
        key = {"model": arguments.model, "epochs": epochs, "seed": seed, "held": arguments.held}
        out = Path(arguments.out)
        fixed = [_once({**key, "lam": lam}, rows, judge, out) for lam in GRIDS[arguments.model]]
        for target in arguments.targets:
            run = _once({**key, "target": target}, rows, judge, out)
            reference = interpolated(fixed, run["sparsity"])
            found[target].append((run["sparsity"], run["error"], reference))
    print("| target | zeros | furthest | error | fixed λ | difference |\n|---|---|---|---|---|---|")
    for target, runs in found.items():
        zeros, errors, references = zip(*runs, strict=True)
        furthest = max(abs(share - target) for share in zeros)
        numbers = [statistics.median(zeros), furthest, *map(statistics.median, (errors, references))]
        differences = [error - reference for error, reference in zip(errors, references, strict=True)]
        cells = [f"{100 * number:.3f}" for number in numbers[:2]] + [f"{100 * number:.2f}" for number in numbers[2:]]
        print(f"| {100 * target:g} | {' | '.join(cells)} | {100 * statistics.median(differences):+.2f} |")


def interpolated(fixed: Sequence[dict], zeros: float) -> float:
    """Interpolate the error of the fixed λ that would end at this share of zeros; beyond the grid, take the nearest."""
    alive = [run for run in fixed if run["sparsity"] < 1]
    points = sorted((math.log(run["sparsity"] / (1 - run["sparsity"])), run["error"]) for run in alive)
    place = math.log(zeros / (1 - zeros))
    for (a, low), (b, high) in itertools.pairwise(points):
        if a <= place <= b:
            return low + (high - low) * (place - a) / (b - a)
    return points[0][1] if place < points[0][0] else points[-1][1]


def _once(key: dict, rows: Rows, judge: Rows, out: Path) -> dict:
    for line in out.read_text().splitlines() if out.exists() else ():
        known = json.loads(line)
        if all(known.get(name) == value for name, value in key.items()) and ("lam" in key) == ("target" not in known):
            return known
    run = {**key, **train(key, rows, judge)}
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps(run) + "\n")
    print(json.dumps(run), flush=True)
    return run


def train(key: dict, rows: Rows, judge: Rows) -> dict:
    """Train with λ fixed, or steered to a target; zeros, error and λ at the end."""
    torch.manual_seed(key["seed"])
    model = models.build(key["model"], tuple(rows[0].shape[1:]), 10)
    convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if convolutional:
        model = model.to(memory_format=torch.channels_last)
        rows = rows[0].to(memory_format=torch.channels_last), rows[1]
    groups = tl.param_groups(model, tl.L1(), lam=key.get("lam", 1e-4))
    optimizer = tl.ProxAdam(groups, lr=1e-3, fused=True)
    plan = Plan(key["epochs"], batch_size=128, seed=key["seed"])
    dressed = Dressed(model, dropout=0.0, bfloat16=convolutional)
    trainer = Trainer(dressed, optimizer, nn.functional.cross_entropy, rows, plan)
    if "target" in key:
        trainer.controls.append(tl.TargetSparsity(optimizer, key["target"], steps=trainer.steps, tolerance=1.0))
    for _ in range(plan.epochs):
        trainer.run_epoch()
    found = evaluate(model, nn.functional.cross_entropy, *judge)
    return {"sparsity": sparsity(groups), "error": found.error, "end": optimizer.param_groups[0]["lam"]}


if __name__ == "__main__":
    main()
