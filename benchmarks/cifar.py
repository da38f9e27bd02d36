"""Convolutional networks on CIFAR-10: the error at a wanted share of exact zeros, of torchlasso and of its peers.

    dense      Adam
    latent     ProxAdam(form="latent") with L1(), TargetSparsity, Reweighted and Hold
    pruning    gradual magnitude pruning (Zhu and Gupta 2017), global, as in peers.py
    pat-adam   torchao's PruneOptimizer with ProxLasso around Adam, as in peers.py
    pat-count  the same with GlobalMinSparsityConstraint

All train the same network on the same images, moved by up to 4 pixels and flipped at random, with the same batches and
the same number of epochs, and leave biases and batch norms alone. The search for rates, schedules and the knobs of each
method is that of peers.py: for every share of zeros the same number of trials, judged on a sixth of the training
images; the trainings with the chosen knobs are on all of them, judged on the test images, once.

    python benchmarks/cifar.py --data FOLDER_WITH_CIFAR10 --network resnet-20 --width 8 --rows 10000 --epochs 12

Every run is appended to --out. Started again, it goes on from there; so several processes, each with some of the
--methods, can share a file, and a last one with all of them prints the table of medians over the seeds.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from networks import vgg_of
from peers import FINAL, HOLD, THETA, TRIAL, Hooks, Log, Method, Network, by_pat, by_pruning, read, show
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam
from tuning import Bisection, Knobs, Run, Sweeps

import torchlasso as tl
from torchlasso import models
from torchlasso.training.augmentation import RandomCrop, RandomFlip
from torchlasso.training.evaluation import evaluate
from torchlasso.training.schedules import rate as share_of_rate
from torchlasso.training.trainer import sparsity

BATCH, TRIAL_SEED, WARMUP = 128, 1000, 0.05


def by_dense(network: Network, zeros: float, steps: int, rate: float) -> Hooks:
    return Hooks(Adam(network.model.parameters(), lr=rate, fused=True))


def by_latent(network: Network, zeros: float, steps: int, rate: float, lam: float) -> Hooks:
    optimizer = tl.ProxAdam(tl.param_groups(network.model, tl.L1(), lam=lam), lr=rate, form="latent", fused=True)
    held = tl.Hold(optimizer, steps, HOLD)
    controls: list[tl.LambdaController] = [tl.TargetSparsity(optimizer, zeros, steps=held.start)]
    controls += [tl.Reweighted(optimizer, theta=THETA), held]
    return Hooks(optimizer, after=lambda done: [control.step() for control in controls])


SCHEDULES = ("cosine", "wsd")
METHODS = {
    "dense": Method(by_dense, Sweeps(rate=(3e-3, 1e-3, 1e-2), schedule=SCHEDULES)),
    "latent": Method(by_latent, Sweeps(rate=(3e-3, 1e-2), lam=(0.01, 0.03), schedule=("wsd", "cosine"))),
    "pruning": Method(by_pruning, Sweeps(rate=(3e-3, 1e-3, 1e-2), schedule=SCHEDULES, end=(0.75, 0.6))),
    "pat-adam": Method(by_pat(Adam), Bisection(0.3, rate=(3e-3, 1e-2), schedule=SCHEDULES, healing=(HOLD, 0.4))),
    "pat-count": Method(by_pat(Adam, counted=True), Sweeps(rate=(3e-3, 1e-2), schedule=SCHEDULES, healing=(HOLD, 0.4))),
}


def build(network: str, width: int, shape: tuple[int, ...]) -> nn.Module:
    return vgg_of(width, shape[0]) if network == "vgg" else models.build(network, shape, 10, width=width)


def train(method: Method, zeros: float, knobs: Knobs, rows: Any, epochs: int, seed: int, net: tuple[str, int]) -> dict:
    """Train a new network; return its zeros, error and loss, and the seconds that the training took."""
    torch.manual_seed(seed)
    model = build(*net, tuple(rows.x.shape[1:]))
    groups = tl.param_groups(model, tl.L1(), lam=0.0)
    own = {name: value for name, value in knobs.items() if name != "schedule"}
    per_epoch = math.ceil(len(rows.train) / BATCH)
    steps = epochs * per_epoch
    hooks = method.make(Network(model, *(group["params"] for group in groups)), zeros, steps, **own)
    moved = [RandomCrop(rows.x[rows.train]), RandomFlip()]
    start, done = time.perf_counter(), 0
    for _ in range(epochs):
        for batch in rows.train[torch.randperm(len(rows.train))].chunk(per_epoch):
            for group in hooks.optimizer.param_groups:
                group["lr"] = knobs["rate"] * share_of_rate(knobs["schedule"], done, steps, warmup=WARMUP, decay=HOLD)
            x = rows.x[batch]
            for move in moved:
                x = move(x)
            model.zero_grad()
            cross_entropy(model(x.contiguous(memory_format=torch.channels_last)), rows.y[batch]).backward()
            hooks.optimizer.step()
            done += 1
            hooks.after(done)
    seconds = time.perf_counter() - start
    found = evaluate(model.eval(), cross_entropy, *rows.judge)
    return {"zeros": sparsity(groups), "error": found.error or 0.0, "loss": found.loss, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with CIFAR-10's train and test files")
    parser.add_argument("--network", choices=("resnet-20", "vgg"), default="resnet-20")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[80, 90, 95, 98], help="per cent of zeros")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--trials", type=int, default=4, help="for each method and share of zeros")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the final runs")
    parser.add_argument("--rows", type=int, help="training images; all unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows, log = read(arguments.data, arguments.rows), Log(arguments.out)
    net, final = (arguments.network, arguments.width), list[Run]()
    shares = [sparsity / 100 for sparsity in arguments.sparsities]

    def run(method: str, zeros: float, part: str, seed: int, knobs: Knobs) -> Run:
        what = {"network": [*net], "method": method, "wanted": zeros, "part": part, "seed": seed, "knobs": knobs}
        what |= {"epochs": arguments.epochs, "rows": arguments.rows}
        return log.once(what, lambda: train(METHODS[method], zeros, knobs, rows[part], arguments.epochs, seed, net))

    for name in arguments.methods:
        search, wanted = METHODS[name].search, [0.0] if name == "dense" else shares
        for zeros in wanted:
            search.explore(lambda knobs, z=zeros, n=name: run(n, z, TRIAL, TRIAL_SEED, knobs), zeros, arguments.trials)
        for zeros in wanted:
            knobs = search.choose(zeros)
            final += [run(name, zeros, FINAL, seed, knobs) for seed in arguments.seeds]
    if "dense" in arguments.methods:
        show(final, ["dense"], [0.0])
    show(final, [name for name in arguments.methods if name != "dense"], shares)


if __name__ == "__main__":
    main()
