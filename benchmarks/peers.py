"""LeNet-300-100 on MNIST: the error at a wanted share of exact zeros, of torchlasso and of its peers.

    latent         ProxAdam(form="latent") with L1(), TargetSparsity, Reweighted and Hold
    latent-cubic   the same with another plan for what is left: share + (1 − share)·(1 − done)³, that of gradual pruning
    proximal       ProxAdam with L1(), TargetSparsity and Reweighted
    loss-term      Adam on loss + λ·Σ|w|; then a cut-off sets the smallest weights to zero, in all layers together, and
                   the last part of training goes on without the penalty and with the zeros held
    pruning        gradual magnitude pruning (Zhu and Gupta 2017): Adam, global L1Unstructured of torch.nn.utils.prune
                   along a cubic ramp, then training with the mask as it is
    pruning-layer  the same, with the share of zeros in every layer
    pat-adam       torchao's PruneOptimizer with ProxLasso around Adam; after "healing" begins, its zeros are held
    pat-count      the same with GlobalMinSparsityConstraint: its number of zeros along a cubic ramp
    pat-sgd        ProxLasso around SGD with momentum 0.9

All have the same network, batches and epochs, and leave biases alone; all can choose their input dropout (an input goes
to the value of an empty pixel with probability p, and what the others differ from it is scaled by 1/(1 − p)), their
rate and its schedule (a cosine, or constant and then a cosine over the last quarter). For every share of zeros each
method has the same number of trials: trainings from two seeds on five sixths of the training images, judged on the
others by their means. Knobs are tried one after the other, each at its values with the best of those before it. PAT's
ProxLasso has no target: it is trained with every setting of its other knobs for the same λ, and its trials go to a
search for λ, by bisection, for the settings that no other one beats in both zeros and error. All its runs count for all
shares. The trainings with the chosen knobs are on all training images and judged on the test images, once.

The table has medians over the seeds. Where the zeros that were reached differ by more than 2 % of the weights that were
to be left, they are in parentheses; the error is then interpolated, in log(weights left), between runs of the same
method and seed for different shares, if there are any on both sides.

    python benchmarks/peers.py --data FOLDER_WITH_MNIST

Every run is appended to --out. Started again, it goes on from there; so several processes, each with some of the
--methods, can share a file, and a last one with all of them prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune
from torch.optim import SGD, Adam, Optimizer
from tuning import Bisection, Knobs, Run, Sweeps, error_at, is_near

import torchlasso as tl
from torchlasso import data, models
from torchlasso.control import latent_search
from torchlasso.training.evaluation import evaluate
from torchlasso.training.input_dropout import InputDropout
from torchlasso.training.schedules import rate
from torchlasso.training.trainer import sparsity

BATCH, HELD = 128, 1 / 6
TRIAL_SEEDS = (1000, 1001)  # none of them is one of the final runs'
TRIAL, FINAL = "trial", "final"
RATES = (3e-3, 5e-3, 1e-3)  # of Adam, for every method that has a target
HOLD, THETA = 0.25, 0.2
warnings.simplefilter("ignore", tl.TargetMissed)  # the table has the shares that were reached


class Network(NamedTuple):
    model: nn.Module
    weights: list[nn.Parameter]  # penalised
    others: list[nn.Parameter]


class Hooks(NamedTuple):
    """The hooks of a method in a training."""

    optimizer: Optimizer
    term: Callable[[], Any] = float  # added to the loss; by default nothing
    after: Callable[[int], Any] = bool  # called with the number of steps that are done; by default nothing


def by_latent(network: Network, zeros: float, steps: int, rate: float, scale: float, hold: float = HOLD) -> Hooks:
    # λ for a density: a power fitted to the values that were best for 90 to 99.5 % zeros (docs/results)
    lam = scale * 0.0225 * (0.1 / (1 - zeros)) ** 0.59
    optimizer = tl.ProxAdam(tl.param_groups(network.model, tl.L1(), lam=lam), lr=rate, form="latent", fused=True)
    held = tl.Hold(optimizer, steps, hold)
    controls: list[tl.LambdaController] = [tl.TargetSparsity(optimizer, zeros, steps=held.start)]
    controls += [tl.Reweighted(optimizer, theta=THETA), held]
    return Hooks(optimizer, after=lambda done: [control.step() for control in controls])


def by_latent_cubic(network: Network, zeros: float, steps: int, rate: float, scale: float, hold: float = HOLD) -> Hooks:
    def cubic(share: float, done: float, start: float = 1.0) -> float:
        return share + (start - share) * (1 - min(done, 1.0)) ** 3

    hooks = by_latent(network, zeros, steps, rate, scale, hold)

    def after(done: int) -> None:
        with mock.patch.object(latent_search, "planned", cubic):
            hooks.after(done)

    return hooks._replace(after=after)


def by_proximal(network: Network, zeros: float, steps: int, rate: float, theta: float) -> Hooks:
    optimizer = tl.ProxAdam(tl.param_groups(network.model, tl.L1(), lam=1e-4), lr=rate, fused=True)
    controls: list[tl.LambdaController] = [tl.TargetSparsity(optimizer, zeros, steps=steps, warmup=0.5)]
    controls.append(tl.Reweighted(optimizer, theta=theta))
    return Hooks(optimizer, after=lambda done: [control.step() for control in controls])


def by_loss_term(network: Network, zeros: float, steps: int, rate: float, lam: float, tuning: float) -> Hooks:
    weights, masks = network.weights, []
    cut = round((1 - tuning) * steps)

    def term() -> Any:
        return 0.0 if masks else lam * sum(w.abs().sum() for w in weights)

    @torch.no_grad()
    def after(done: int) -> None:
        if done == cut:
            flat = torch.cat([w.abs().flatten() for w in weights])
            kept = torch.ones_like(flat)
            kept[flat.topk(round(zeros * len(flat)), largest=False).indices] = 0
            masks.extend(kept.split([w.numel() for w in weights]))
        for w, mask in zip(weights, masks, strict=False):
            w.mul_(mask.view_as(w))

    return Hooks(Adam(network.model.parameters(), lr=rate, fused=True), term, after)


def by_pruning(network: Network, zeros: float, steps: int, rate: float, end: float, by_layer: bool = False) -> Hooks:
    wanted = {id(weight) for weight in network.weights}
    layers = [(module, "weight") for module in network.model.modules() if id(getattr(module, "weight", None)) in wanted]
    first, last = round(0.05 * steps), round(end * steps)
    updates = {*range(first, last, max(1, steps // 100)), last}

    def after(done: int) -> None:
        if done in updates or done == steps:  # made permanent; zeros are the first to be pruned again below
            for module, name in layers:
                if prune.is_pruned(module):
                    prune.remove(module, name)
        if done in updates:
            share = zeros * (1 - (1 - (done - first) / (last - first)) ** 3)
            for some in [[layer] for layer in layers] if by_layer else [layers]:
                count = sum(module.weight.numel() for module, _ in some)
                prune.global_unstructured(some, pruning_method=prune.L1Unstructured, amount=round(share * count))

    return Hooks(Adam(network.model.parameters(), lr=rate, fused=True), after=after)


def by_pat(base: type[Optimizer], counted: bool = False, **options: Any) -> Callable[..., Hooks]:
    def make(network: Network, zeros: float, steps: int, rate: float, healing: float, lam: float = 0.0) -> Hooks:
        from torchao.prototype.pat.optim import PruneOptimizer

        kind = {"prox_type": "ProxLasso", "group_type": "ElemGrouper"}
        if counted:
            kind = {"prox_type": "GlobalMinSparsityConstraint", "group_type": "KElementGrouper", "k": 1}
            kind |= {"min_sparsity": zeros, "min_sparsity_schedule": True}
        inner = base([{"params": network.weights, **kind}, {"params": network.others}], lr=rate, fused=True, **options)
        return Hooks(PruneOptimizer(inner, reg_lambda=lam, healing_start_step=round((1 - healing) * steps)))

    return make


class Method(NamedTuple):
    make: Callable[..., Hooks]  # (network, zeros, steps, rate=..., and the other knobs)
    search: Sweeps | Bisection


COMMON: dict[str, Sequence[Any]] = {"dropout": (0.1, 0.2, 0.05), "schedule": ("wsd", "cosine")}
LATENT: dict[str, Sequence[Any]] = {"rate": (5e-3, 3e-3), **COMMON, "scale": (1.0, 1.3), "hold": (HOLD, 0.4)}
METHODS = {
    "latent": Method(by_latent, Sweeps(**LATENT)),
    "latent-cubic": Method(by_latent_cubic, Sweeps(**LATENT)),
    "proximal": Method(by_proximal, Sweeps(rate=RATES, **COMMON, theta=(0.05, 0.2))),
    "loss-term": Method(by_loss_term, Sweeps(lam=(3e-4, 1e-3), rate=RATES, **COMMON, tuning=(0.25, 0.5))),
    "pruning": Method(by_pruning, Sweeps(rate=RATES, **COMMON, end=(0.75, 0.6))),
    "pruning-layer": Method(by_pruning, Sweeps(rate=RATES, **COMMON, end=(0.75, 0.6), by_layer=(True,))),
    "pat-adam": Method(by_pat(Adam), Bisection(0.1, rate=(3e-3, 5e-3), healing=(HOLD, 0.4), **COMMON)),
    "pat-count": Method(by_pat(Adam, counted=True), Sweeps(rate=RATES, **COMMON, healing=(HOLD, 0.4))),
    "pat-sgd": Method(by_pat(SGD, momentum=0.9), Bisection(3e-4, rate=(0.1, 0.03), healing=(0.4, HOLD), **COMMON)),
}


class Rows(NamedTuple):
    """Standardised images, the indices of those to train on, and the images to evaluate on."""

    x: Tensor
    y: Tensor
    train: Tensor
    judge: tuple[Tensor, Tensor]


def read(folder: str, rows: int | None) -> dict[str, Rows]:
    """Return the rows of trials and of final runs; ``rows`` limits the number of training images."""
    dataset = data.load(folder)
    x, y = dataset.x, dataset.y
    if rows is not None:
        _, drawn = data.holdout(y, rows / len(y), seed=0)
        x, y = x[drawn], y[drawn]
    kept, held = data.holdout(y, HELD, seed=0)
    scale = data.Standardizer.fit(x[kept])
    x, test_x = scale(x), scale(dataset.test_x)
    return {
        TRIAL: Rows(x, y, kept, (x[held], y[held])),
        FINAL: Rows(x, y, torch.arange(len(y)), (test_x, dataset.test_y)),
    }


def train(method: Method, zeros: float, knobs: Knobs, rows: Rows, epochs: int, seed: int) -> dict[str, float]:
    """Train a new network; return its zeros, error and loss, and the seconds that the training took."""
    torch.manual_seed(seed)
    model = models.build("lenet-300-100", tuple(rows.x.shape[1:]), 10)
    groups = tl.param_groups(model, tl.L1(), lam=0.0)
    steps = epochs * math.ceil(len(rows.train) / BATCH)
    own = {name: value for name, value in knobs.items() if name not in COMMON}
    hooks = method.make(Network(model, *(group["params"] for group in groups)), zeros, steps, **own)
    dropout = InputDropout.fit(rows.x, knobs["dropout"])
    orders = (rows.train[torch.randperm(len(rows.train))] for _ in range(epochs))
    start = time.perf_counter()
    for done, batch in enumerate(batch for order in orders for batch in order.split(BATCH)):
        for group in hooks.optimizer.param_groups:
            group["lr"] = knobs["rate"] * rate(knobs["schedule"], done, steps, decay=HOLD)
        loss = cross_entropy(model(dropout(rows.x[batch])), rows.y[batch]) + hooks.term()
        model.zero_grad()
        loss.backward()
        hooks.optimizer.step()
        hooks.after(done + 1)
    seconds = time.perf_counter() - start
    found = evaluate(model, cross_entropy, *rows.judge)
    return {"zeros": sparsity(groups), "error": found.error or 0.0, "loss": found.loss, "seconds": seconds}


class Log:
    """The runs of --out, in memory by their settings."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        self.path, self.runs = path, {json.dumps(line["what"]): line["found"] for line in lines}

    def once(self, what: dict[str, Any], make: Callable[[], dict[str, float]]) -> Run:
        """Return the run, from the file if it is there."""
        key = json.dumps(what)
        if key not in self.runs:
            self.runs[key] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({"what": what, "found": self.runs[key]}) + "\n")
        run = {**what, **self.runs[key]}
        knobs = ", ".join(f"{name} {value}" for name, value in run["knobs"].items())
        print(
            f"{run['method']:<14}{100 * run['wanted']:g} %  {run['part']} {run['seed']:<5}{knobs:<70} "
            f"{100 * run['zeros']:.2f} % zeros, {100 * run['error']:.2f} % error, {run['seconds']:.0f} s",
            flush=True,
        )
        return run


def show(runs: list[Run], methods: Sequence[str], shares: Sequence[float]) -> None:
    """Print a Markdown table of the medians over the seeds of final runs."""
    print("\n|", " | ".join(["test error at zeros of", *(f"{100 * zeros:g} %" for zeros in shares)]), "|")
    print("|" + "---|" * (1 + len(shares)))
    for method in methods:
        cells = []
        for zeros in shares:
            own = [run for run in runs if run["method"] == method]
            seeds = {run["seed"] for run in own}
            error = median(error_at([run for run in own if run["seed"] == seed], zeros) for seed in seeds)
            reached = median(run["zeros"] for run in own if run["wanted"] == zeros)
            note = "" if is_near(reached, zeros) else f" ({100 * reached:.2f} %)"
            cells.append(f"{100 * error:.2f} %{note}")
        print("|", " | ".join([method, *cells]), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--sparsities", type=float, nargs="+", default=[90, 95, 98, 99, 99.5], help="per cent of zeros")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--trials", type=int, default=6, help="for each method and share of zeros")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the final runs")
    parser.add_argument("--rows", type=int, help="training images; all, unless something is only to be tried out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/peers.jsonl"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if find_spec("torchao") is None:
        print("torchao is not installed: PAT is left out")
        arguments.methods = [name for name in arguments.methods if not name.startswith("pat")]
    rows, log = read(arguments.data, arguments.rows), Log(arguments.out)
    shares, final = [sparsity / 100 for sparsity in arguments.sparsities], list[Run]()

    def run(method: str, zeros: float, part: str, seed: int, knobs: Knobs) -> Run:
        what = {"method": method, "wanted": zeros, "part": part, "seed": seed, "knobs": knobs}
        what |= {"epochs": arguments.epochs, "rows": arguments.rows}
        return log.once(what, lambda: train(METHODS[method], zeros, knobs, rows[part], arguments.epochs, seed))

    def trial(method: str, zeros: float, knobs: Knobs) -> Run:
        runs = [run(method, zeros, TRIAL, seed, knobs) for seed in TRIAL_SEEDS]
        return {**runs[0], **{key: fmean(each[key] for each in runs) for key in ("zeros", "error", "loss")}}

    for name in arguments.methods:
        search = METHODS[name].search
        for zeros in shares:
            search.explore(lambda knobs, z=zeros, n=name: trial(n, z, knobs), zeros, arguments.trials)
        for zeros in shares:
            knobs = search.choose(zeros)
            final += [run(name, zeros, FINAL, seed, knobs) for seed in arguments.seeds]
    show(final, arguments.methods, shares)


if __name__ == "__main__":
    main()
