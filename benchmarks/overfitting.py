"""Does the penalty help against overfitting? Few training images of MNIST, 5 seeds, strengths by cross-validation.

For each seed and number of images these are drawn, by class. Every strength of the grid is judged by 3-fold
cross-validation on them (error, then loss), for L2 (Adam's weight decay on the weights) and for torchlasso (L1, λ
rising over the first half) each on its own; then each trains on all the images at the strength it chose, as does the
network without a penalty. The test images are used once, at the end.

    python benchmarks/overfitting.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso import data, models
from torchlasso.path import folds_of
from torchlasso.training.evaluation import Evaluation, evaluate
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer, sparsity

SEEDS = range(5)
FOLDS = 3
Rows = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Method:
    """A name, the strengths that are tried, and how a trainer is made of one."""

    name: str
    strengths: tuple[float, ...]
    trainer: Callable[[nn.Module, Rows, Plan, float], Trainer]


def torch_adam(model: nn.Module, rows: Rows, plan: Plan, strength: float) -> Trainer:
    groups = tl.param_groups(model, tl.L1(), lam=0.0)
    plain = [{"params": g["params"], "weight_decay": strength if g["penalty"] is not None else 0.0} for g in groups]
    return Trainer(model, torch.optim.Adam(plain, lr=1e-3), nn.functional.cross_entropy, rows, plan)


def ours(model: nn.Module, rows: Rows, plan: Plan, strength: float) -> Trainer:
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=strength), lr=1e-3)
    trainer = Trainer(model, optimizer, nn.functional.cross_entropy, rows, plan)
    trainer.controls.append(tl.Warmup(optimizer, steps=max(1, trainer.steps // 2)))
    return trainer


METHODS = (
    Method("no penalty", (0.0,), torch_adam),
    Method("L2", (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), torch_adam),
    Method("torchlasso", (3e-5, 1e-4, 2e-4, 5e-4, 1e-3), ours),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", default="lenet-300-100")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000, 5000])
    arguments = parser.parse_args()
    dataset = data.load(arguments.data)
    print("images  seed  method      strength  test error  test loss  exact zeros", flush=True)
    for count in arguments.images:
        found: dict[str, list[tuple[Evaluation, float]]] = {method.name: [] for method in METHODS}
        for seed in SEEDS:
            _, drawn = data.holdout(dataset.y, count / len(dataset.y), seed)
            x, y = dataset.x[drawn], dataset.y[drawn]
            scale = data.Standardizer.fit(x)
            rows, test = (scale(x), y), (scale(dataset.test_x), dataset.test_y)
            plan = Plan(arguments.epochs, batch_size=64, seed=seed)
            for method in METHODS:
                best = chosen(method, arguments.model, rows, plan)
                judged, zeros = train(method, arguments.model, best, rows, plan, test)
                found[method.name].append((judged, zeros))
                numbers = f"{100 * (judged.error or 0):6.2f} %    {judged.loss:.3f}      {100 * zeros:.1f} %"
                print(f"{count:<7} {seed:<5} {method.name:<11} {best:<9.0e} {numbers}", flush=True)
        for name, runs in found.items():
            errors, losses = [100 * (e.error or 0) for e, _ in runs], [e.loss for e, _ in runs]
            gains = [
                100 * ((a.error or 0) - (b.error or 0))
                for (a, _), (b, _) in zip(found["no penalty"], runs, strict=True)
            ]
            print(
                f"{count} images, {name}: test error {statistics.mean(errors):.2f} ± {statistics.stdev(errors):.2f} %, "
                f"test loss {statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}, "
                f"zeros {100 * statistics.mean(z for _, z in runs):.1f} %, "
                f"gain by seed {', '.join(f'{gain:+.2f}' for gain in gains)}",
                flush=True,
            )


def chosen(method: Method, model: str, rows: Rows, plan: Plan) -> float:
    """Return the strength with the least cross-validated error; among equal ones, the one with the least loss."""
    if len(method.strengths) == 1:
        return method.strengths[0]
    x, y = rows

    def judged(strength: float) -> tuple[float, float]:
        folds = [
            train(method, model, strength, (x[kept], y[kept]), plan, (x[held], y[held]))[0]
            for kept, held in folds_of(len(y), FOLDS, plan.seed)
        ]
        return sum(fold.error or 0.0 for fold in folds), sum(fold.loss for fold in folds)

    return min(method.strengths, key=judged)


def train(method: Method, name: str, strength: float, rows: Rows, plan: Plan, judge: Rows) -> tuple[Evaluation, float]:
    """Train a network, and return its figures on the evaluation rows and its share of zeros."""
    torch.manual_seed(plan.seed)
    model = models.build(name, tuple(rows[0].shape[1:]), 10)
    trainer = method.trainer(model, rows, plan, strength)
    for _ in range(plan.epochs):
        trainer.run_epoch()
    zeros = sparsity(tl.param_groups(model, tl.L1(), lam=0.0))
    return evaluate(model, trainer.loss, *judge), zeros


if __name__ == "__main__":
    main()
