"""Short trainings: the error at a wanted share of zeros after 100 to 1,000 steps, of torchlasso and of its peers.

    latent         ProxAdam(form="latent") with L1, TargetSparsity, Reweighted and Hold
    proximal       ProxAdam with L1 and TargetSparsity, as without any option of the form
    pruning        gradual magnitude pruning (Zhu and Gupta 2017): Adam, and the smallest weights of the whole network
                   masked along a cubic ramp
    pruning-layer  the same, with the share of zeros in every layer
    dense          Adam

All have the same network, batches and number of steps, and the same schedules to choose from: a constant rate after a
warm-up of 5 % that falls over the last quarter, in which nothing more becomes zero, or one that falls along a cosine.
For each case, every method has the same four trials, on one seed and validation rows, and the best of them trains with
three other seeds; the table has the medians of their errors on the test rows, in per cent.

    python benchmarks/short.py --data digits --models mlp lenet-300-100 --steps 100 400

``--data mnist FOLDER`` takes 10,000 rows of MNIST. Every run is appended to --out, and started again it goes on there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam, Optimizer

import torchlasso as tl
from torchlasso import data, models
from torchlasso.control import LambdaController
from torchlasso.training.schedules import rate
from torchlasso.weights import weights_of

BATCH, ROWS, TRIAL_SEED, SEEDS = 128, 10_000, 1000, (0, 1, 2)
HOLD, WARMUP = 0.25, 0.05
# (the peak of the rate, its schedule)
SCHEDULES = [(1e-2, "wsd"), (3e-3, "wsd"), (1e-2, "cosine"), (3e-3, "cosine")]
KNOBS = {"latent": [(1e-2, "wsd", 0.02), (1e-2, "wsd", 0.1), (3e-3, "wsd", 0.02), (3e-3, "wsd", 0.1)]}
THETA = 0.2


class Case(NamedTuple):
    data: str
    model: str
    steps: int
    zeros: float


class Rows(NamedTuple):
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    shape: tuple[int, ...]
    outputs: int


class Training(NamedTuple):
    optimizer: Optimizer
    after: Callable[[int], Any] = bool  # called with the number of steps that are done


def read(name: str, source: str) -> Rows:
    """Read the rows, and split a tenth of the training rows off for validation, or 2,000 further rows of MNIST."""
    whole = data.load(source)
    kept, held = data.holdout(whole.y, 0.1, 7)
    if name == "mnist":
        order = torch.randperm(len(whole.x), generator=torch.Generator().manual_seed(7))
        kept, held = order[:ROWS], order[ROWS : ROWS + 2000]
    scale = data.Standardizer.fit(whole.x[kept])
    parts = [(scale(whole.x[rows]), whole.y[rows]) for rows in (kept, held)]
    return Rows(*parts, (scale(whole.test_x), whole.test_y), whole.input_shape, whole.outputs)


def latent(model: nn.Module, case: Case, peak: float, schedule: str, lam: float) -> Training:
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=lam), lr=peak, form="latent")
    hold = tl.Hold(optimizer, case.steps, HOLD)
    controls: list[LambdaController] = [tl.TargetSparsity(optimizer, case.zeros, steps=hold.start)]
    controls += [tl.Reweighted(optimizer, theta=THETA), hold]
    return Training(optimizer, lambda done: [control.step() for control in controls])


def proximal(model: nn.Module, case: Case, peak: float, schedule: str) -> Training:
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-4), lr=peak)
    control = tl.TargetSparsity(optimizer, case.zeros, steps=case.steps, tolerance=1.0)
    return Training(optimizer, lambda done: control.step())


def pruning(model: nn.Module, case: Case, peak: float, schedule: str, *, by_layer: bool = False) -> Training:
    weights = [w for _, _, w in weights_of(model) if w.requires_grad]
    masks = [torch.ones_like(w, dtype=torch.bool) for w in weights]
    until = round((1 - HOLD) * case.steps)

    @torch.no_grad()
    def after(done: int) -> None:
        share = case.zeros * (1 - (1 - min(1.0, done / until)) ** 3)
        sets = [[i] for i in range(len(weights))] if by_layer else [list(range(len(weights)))]
        for members in sets if done <= until else ():
            flat = torch.cat([torch.where(masks[i], weights[i].abs(), -1.0).flatten() for i in members])
            kept = torch.ones_like(flat, dtype=torch.bool)
            kept[flat.topk(round(share * len(flat)), largest=False).indices] = False
            for i, part in zip(members, kept.split([weights[i].numel() for i in members]), strict=True):
                masks[i] = part.view_as(weights[i])
        for w, mask in zip(weights, masks, strict=True):
            w.mul_(mask)

    return Training(Adam(model.parameters(), lr=peak), after)


def pruning_layer(model: nn.Module, case: Case, peak: float, schedule: str) -> Training:
    return pruning(model, case, peak, schedule, by_layer=True)


def dense(model: nn.Module, case: Case, peak: float, schedule: str) -> Training:
    return Training(Adam(model.parameters(), lr=peak))


METHODS = {
    "latent": latent,
    "proximal": proximal,
    "pruning": pruning,
    "pruning-layer": pruning_layer,
    "dense": dense,
}


def run(rows: Rows, case: Case, method: str, knobs: Sequence[Any], seed: int) -> dict[str, float]:
    """Train once, and return the errors and the share of zeros."""
    torch.manual_seed(seed)
    model = models.build(case.model, rows.shape, rows.outputs)
    training = METHODS[method](model, case, *knobs)
    (peak, schedule, *_), (x, y) = knobs, rows.train
    for done, batch in enumerate(batches(len(x), case.steps), start=1):
        for group in training.optimizer.param_groups:
            group["lr"] = peak * rate(schedule, done - 1, case.steps, warmup=WARMUP, decay=HOLD)
        training.optimizer.zero_grad()
        cross_entropy(model(x[batch]), y[batch]).backward()
        training.optimizer.step()
        training.after(done)
    model.eval()
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() > 1])
    found = {"validation": _error(model, *rows.validation), "test": _error(model, *rows.test)}
    return {**found, "zeros": float((weights == 0).double().mean())}


def batches(n: int, steps: int, size: int = BATCH) -> Iterator[Tensor]:
    """Yield the rows of as many batches as there are steps, in a new order for each epoch."""
    done = 0
    while done < steps:
        for batch in torch.randperm(n).split(size):
            if len(batch) > 1 and done < steps:
                done += 1
                yield batch


@torch.no_grad()
def _error(model: nn.Module, x: Tensor, y: Tensor) -> float:
    wrong = sum(int((model(a).argmax(1) != b).sum()) for a, b in zip(x.split(1000), y.split(1000), strict=True))
    return 100 * wrong / len(y)


class Runs:
    """The runs of a file, each made once."""

    def __init__(self, path: Path) -> None:
        self.path, self.known = path, dict[str, dict[str, float]]()
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            self.known[entry["run"]] = entry["found"]

    def found(self, rows: Rows, case: Case, method: str, knobs: Sequence[Any], seed: int) -> dict[str, float]:
        key = json.dumps([*case, method, *knobs, seed])
        if key not in self.known:
            self.known[key] = run(rows, case, method, knobs, seed)
            with self.path.open("a") as file:
                file.write(json.dumps({"run": key, "found": self.known[key]}) + "\n")
        return self.known[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=["digits"], help="digits, or mnist and its folder")
    parser.add_argument("--models", nargs="+", default=["mlp", "lenet-300-100", "lenet-5", "cnn"])
    parser.add_argument("--steps", nargs="+", type=int, default=[100, 200, 400, 1000])
    parser.add_argument("--zeros", nargs="+", type=float, default=[0.9, 0.97])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "short.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    name, source = args.data[0], args.data[-1]
    rows, runs = read(name, source), Runs(args.out)
    print(f"{'':<42}" + "".join(f"{method:>15}" for method in args.methods))
    for model, steps, zeros in product(args.models, args.steps, args.zeros):
        cells = []
        for method in args.methods:
            case = Case(name, model, steps, 0.0 if method == "dense" else zeros)
            knobs = KNOBS.get(method, SCHEDULES)
            tried = {k: runs.found(rows, case, method, k, TRIAL_SEED)["validation"] for k in map(tuple, knobs)}
            best = min(tried, key=tried.__getitem__)
            finals = [runs.found(rows, case, method, best, seed) for seed in SEEDS]
            error, share = (median(each[key] for each in finals) for key in ("test", "zeros"))
            off = method != "dense" and abs(share - zeros) > 1e-3
            cells.append(f"{error:.2f}" + (f" ({100 * share:.1f})" if off else ""))
        head = f"{name}, {model}, {steps} steps, {100 * zeros:g} % zeros"
        print(f"{head:<42}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
