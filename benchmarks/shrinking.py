"""Training that becomes faster as it goes: units die, and leave the model while it trains. MNIST, wall-clock.

Each network is trained three ways for the same epochs: dense, by torch's Adam; by ProxAdam with a group penalty on its
units, steered to a share of the FLOPs in the first part of training and without a penalty in the rest; and the same
with what has died taken out after each epoch where that pays. Test
errors, seconds, and the FLOPs that are left when the result is compacted. Then what looking for dead units costs where
none can die: the same penalised training at λ = 0 with and without it, in turns.

Networks: the zoo's ``cnn`` four times as wide (``narrow``: as it is), and a VGG with batch norm
(benchmarks/networks.py).

    python benchmarks/shrinking.py --data FOLDER_WITH_MNIST --model vgg --threads 2
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from frontier import Rows, read
from networks import vgg_mnist, wide_cnn
from torch import nn

import torchlasso as tl
from torchlasso.compaction import Shrinker
from torchlasso.compaction.report import Totals
from torchlasso.training.evaluation import evaluate
from torchlasso.training.plan import Plan
from torchlasso.training.trainer import Trainer

MODELS = {"cnn": wide_cnn, "vgg": vgg_mnist, "narrow": lambda: wide_cnn(1)}
WAYS = ("dense", "penalised", "penalised, shrinks")
LOSS = nn.functional.cross_entropy
SAMPLE = 8  # rows by which the cost is estimated


@dataclass(frozen=True)
class Trained:
    seconds: float
    error: float
    flops: float  # of those of the dense network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", choices=MODELS, default="vgg")
    parser.add_argument("--rows", type=int, default=60_000, help="training images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--flops", type=float, default=0.3, help="share to end with")
    parser.add_argument("--lam", type=float, default=2e-2, help="where the search begins")
    parser.add_argument("--by", choices=("flops", "size"), default="flops", help="λ of a unit follows this")
    parser.add_argument("--until", type=float, default=0.15, help="share of training in which units die; then λ is 0")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--held", action="store_true", help="judge on held out training images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="for trials; times are to be those of a CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, judge = read(arguments.data, arguments.held)
    rows, judge = (tuple(t.to(arguments.device) for t in pair) for pair in (rows, judge))
    rows = rows[0][: arguments.rows], rows[1][: arguments.rows]
    found: dict[str, list[Trained]] = {way: [] for way in arguments.ways}
    for seed in arguments.seeds:
        for way in arguments.ways:
            result = train(arguments, way, seed, rows, judge)
            found[way].append(result)
            print(f"{arguments.model}, seed {seed}, {way}: {_line(result)}", flush=True)
    medians = {
        way: Trained(*(statistics.median(getattr(run, name) for run in runs) for name in ("seconds", "error", "flops")))
        for way, runs in found.items()
    }
    small = medians[arguments.ways[-1]]
    for way, median in medians.items():
        times = f"{arguments.ways[-1]}: {small.seconds / median.seconds:.2f} of its time"
        print(f"{arguments.model}, median, {way}: {_line(median)}  {times}", flush=True)
    print(f"{arguments.model}, looking for what is dead where nothing dies: {100 * overhead(arguments, rows):.2f} %")


def _line(run: Trained) -> str:
    return f"{run.seconds:.1f} s, error {100 * run.error:.2f} %, {100 * run.flops:.1f} % of the FLOPs left"


def train(arguments: argparse.Namespace, way: str, seed: int, rows: Rows, judge: Rows) -> Trained:
    trainer = trainer_of(arguments, way, seed, rows)
    dense = flops(trainer.model, rows)
    for epoch in range(arguments.epochs):
        if epoch == round(arguments.until * arguments.epochs) and way != "dense":
            _let_go(trainer)
        trainer.run_epoch()
        trainer.shrink()
    error = evaluate(trainer.model, LOSS, *judge).error or 0.0
    left = flops(trainer.model if way == "dense" else tl.compact(trainer.model, rows[0][:2]), rows)
    return Trained(trainer.seconds, error, left / dense)


def _let_go(trainer: Trainer) -> None:
    """Train on without a penalty. Zeros stay zero: a dead unit has no gradient, only moments."""
    trainer.controls.clear()
    for group in trainer.optimizer.param_groups:
        group["lam"] = 0.0
        for p in group["params"]:
            if p in trainer.optimizer.state:
                trainer.optimizer.state[p]["exp_avg"].mul_(p.detach() != 0)


def trainer_of(arguments: argparse.Namespace, way: str, seed: int, rows: Rows) -> Trainer:
    torch.manual_seed(seed)
    model = MODELS[arguments.model]().to(arguments.device)
    fused = True if arguments.device == "cpu" else None
    plan = Plan(arguments.epochs, 128, seed)
    if way == "dense":
        return Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), LOSS, rows, plan)
    groups = tl.param_groups(model, tl.L1(over=tl.Units(model, rows[0][:2], by=arguments.by)), lam=arguments.lam)
    optimizer = tl.ProxAdam(groups, lr=1e-3, fused=fused)
    trainer = Trainer(model, optimizer, LOSS, rows, plan)
    steps = trainer.batches * round(arguments.until * arguments.epochs)
    control = tl.TargetBudget(optimizer, model, rows[0][:SAMPLE], flops=arguments.flops, steps=steps)
    trainer.controls.append(control)
    if way.endswith("shrinks"):
        trainer.shrinker = Shrinker(model, rows[0][:2])
    return trainer


def flops(model: nn.Module, rows: Rows) -> int:
    return Totals.of(model, rows[0][:1]).flops


def overhead(arguments: argparse.Namespace, rows: Rows, epochs: int = 3) -> float:
    """Measure the share of an epoch that the search for dead units takes, if nothing can be removed."""
    trainer = trainer_of(arguments, "penalised, shrinks", 0, rows)
    _let_go(trainer)
    epoch, looking = 0.0, 0.0
    for _ in range(epochs):
        start = time.perf_counter()
        trainer.run_epoch()
        middle = time.perf_counter()
        trainer.shrink()
        epoch, looking = epoch + middle - start, looking + time.perf_counter() - middle
    return looking / epoch


if __name__ == "__main__":
    main()
