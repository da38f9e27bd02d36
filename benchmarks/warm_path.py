"""The warm-started path against separate trainings: LeNet-300-100 on MNIST, 20 points from dense to 99.5 % zeros.

For each seed the path is followed (6 epochs for the dense model, 4 for the first sparse point, 2 for each of the next
14 and 3 for each of the last 4: the cost of 2.5 trainings of 20 epochs; the rate grows along the path), and for each of
its points a network is trained from scratch for 20 epochs, λ steered to the zeros that the point has. Test errors side
by side. Each separate training is appended to ``--out``, and not made again.

    python benchmarks/warm_path.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from frontier import Rows, read
from torch import nn

import torchlasso as tl
from torchlasso import models
from torchlasso.path import Grid, Point, Recipe, follow
from torchlasso.training.evaluation import evaluate
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

LOSS = nn.functional.cross_entropy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--dense", type=int, default=6, help="epochs for the dense model")
    parser.add_argument("--first", type=int, default=4, help="the same for the first sparse point")
    parser.add_argument("--each", type=int, default=2, help="the same for each of the others")
    parser.add_argument("--last", type=int, default=3, help="the same for each of the last four")
    parser.add_argument("--theta", type=float, default=0.05, help="of the reweighting, for both")
    parser.add_argument("--lr", type=float, default=1e-3, help="rate at the start of every point")
    parser.add_argument("--growth", type=float, default=5.0, help="rate of the last point, to that of the dense model")
    parser.add_argument("--held", action="store_true", help="judge on held out training images")
    parser.add_argument("--rate-apart", type=float, default=3e-3, help="of the networks that are trained separately")
    parser.add_argument("--alone", action="store_true", help="only the path")
    parser.add_argument("--out", default="runs/warm_path.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, judge = read(arguments.data, arguments.held)
    ratios, differences = [], []
    for seed in arguments.seeds:
        points, seconds = path(arguments, seed, rows, judge)
        print(f"seed {seed}: the path took {seconds:.0f} s", flush=True)
        for zeros, error in points:
            if arguments.alone:
                print(f"  {100 * zeros:6.2f} % zeros  path {100 * error:.2f} %", flush=True)
                continue
            apart, cost = separately(arguments, seed, zeros, rows, judge)
            ratios.append(seconds / cost)
            differences.append((zeros, error - apart))
            print(f"  {100 * zeros:6.2f} % zeros  path {100 * error:.2f} %  apart {100 * apart:.2f} %", flush=True)
    if differences:
        worst = max(differences, key=lambda pair: pair[1])
        print(f"cost of the path over that of one training: {statistics.median(ratios):.2f}")
        print(f"worst difference of a point: {100 * worst[1]:+.2f} points, at {100 * worst[0]:.2f} % zeros")
        print(f"median difference: {100 * statistics.median(d for _, d in differences):+.2f} points")


def path(arguments: argparse.Namespace, seed: int, rows: Rows, judge: Rows) -> tuple[list[tuple[float, float]], float]:
    """Return the zeros and the error of every point, and the total seconds."""
    recipe = Recipe(
        Grid(arguments.points),
        groups=lambda model: tl.param_groups(model, tl.L1(), lam=1.0),
        optimizer=lambda groups: tl.ProxAdam(groups, lr=arguments.lr, fused=True),
        loss=LOSS,
        dense=Plan(arguments.dense, seed=100 * seed),
        each=Plan(arguments.each, seed=100 * seed),
        theta=arguments.theta or None,
        lr_growth=arguments.growth,
    )
    torch.manual_seed(seed)
    model, found = models.build("lenet-300-100", (1, 28, 28), 10), list[Point]()
    for end, dense, each in (  # up to which point, and the epochs there
        (1, arguments.dense, arguments.each),
        (arguments.points - 4, arguments.first, arguments.each),
        (arguments.points, arguments.first, arguments.last),
    ):
        plans = {"dense": replace(recipe.dense, epochs=dense), "each": replace(recipe.each, epochs=each)}
        points = follow(model, replace(recipe, **plans), rows, test=judge, done=found)
        found += list(itertools.islice(points, end - len(found)))
    zeros_and_errors = [(point.sparsity, point.test.error or 0.0) for point in found if point.test is not None]
    return zeros_and_errors, sum(point.seconds for point in found)


def separately(arguments: argparse.Namespace, seed: int, zeros: float, rows: Rows, judge: Rows) -> tuple[float, float]:
    """Train a separate network, dense if ``zeros`` is 0; return its error and the seconds."""
    rate = arguments.rate_apart if zeros else arguments.lr
    key = {"seed": seed, "zeros": zeros, "theta": arguments.theta, "rate": rate, "held": arguments.held}
    out = Path(arguments.out)
    for line in out.read_text().splitlines() if out.exists() else ():
        known = json.loads(line)
        if known["key"] == key:
            return known["error"], known["seconds"]
    torch.manual_seed(seed)
    model = models.build("lenet-300-100", (1, 28, 28), 10)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-4 if zeros else 0.0), lr=rate, fused=True)
    trainer = Trainer(model, optimizer, LOSS, rows, Plan(20, seed=seed))
    if zeros:
        trainer.controls.append(tl.TargetSparsity(optimizer, zeros, steps=trainer.steps, tolerance=1.0))
        if arguments.theta:
            trainer.controls.append(tl.Reweighted(optimizer, arguments.theta))
    for _ in range(20):
        trainer.run_epoch()
    error, seconds = evaluate(model, LOSS, *judge).error or 0.0, trainer.seconds
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a") as file:
        file.write(json.dumps({"key": key, "error": error, "seconds": seconds}) + "\n")
    return error, seconds


if __name__ == "__main__":
    main()
