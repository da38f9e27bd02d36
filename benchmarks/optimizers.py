"""Proximal optimizers beside reference solutions of convex problems, and on a network with mini-batches.

convex: least squares over a matrix of 16 × 12 weights, full batches, float64, 3,000 steps. The figure is the objective
above that of the solution (accelerated proximal gradients, to the last digits), relative to it, and the number of
blocks that are zero in one and not in the other.

digits: a network 64-100-100-10 on scikit-learn's digits, batches of 64, 40 epochs, the same λ for all. The figures are
the zeros, the test error, the objective (mean training loss + λ·penalty) and the distance from a stationary point.

    python benchmarks/optimizers.py convex
    python benchmarks/optimizers.py digits
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchlasso as tl

RESULTS = Path(__file__).parent / "results" / "optimizers.jsonl"
PENALTIES = {
    "elements": (tl.L1(), 0.6),
    "rows": (tl.L1(over=tl.Rows()), 0.6),
    "nuclear norm": (tl.L1(over=tl.SingularValues()), 3.0),
}


def optimizers() -> dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any], float, float, bool]]:
    """Return by name the class, its options, the rate for each part, and whether a schedule lowers the rate."""
    import lion_pytorch
    import schedulefree
    import torchao.optim
    from transformers.optimization import Adafactor

    fixed = {"relative_step": False, "scale_parameter": False}
    none = {"weight_decay": 0.0}
    return {
        "Adam": (torch.optim.Adam, {}, 0.1, 3e-3, True),
        "Adam, normal map": (torch.optim.Adam, {"form": "normal-map"}, 0.1, 3e-3, True),
        "Muon": (torch.optim.Muon, none, 0.1, 2e-2, True),
        "Lion": (lion_pytorch.Lion, {}, 1e-2, 1e-3, True),
        "Rprop": (torch.optim.Rprop, {}, 1e-2, 0.0, False),
        "schedule-free AdamW": (schedulefree.AdamWScheduleFree, {}, 0.1, 1e-2, False),
        "Adafactor (torch)": (torch.optim.Adafactor, {}, 1.0, 5e-2, True),
        "Adafactor (transformers)": (Adafactor, fixed, 0.1, 3e-3, True),
        "AdamW of 8 bits (torchao)": (torchao.optim.AdamW8bit, none, 0.0, 3e-3, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("convex", "digits"))
    parser.add_argument("--reach", type=float, nargs="+", default=[0.0], help="t, in first steps; 0 for its own")
    parser.add_argument("--only", nargs="+", help="names of optimizers")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    for reach in arguments.reach:
        cases = {name: case for name, case in optimizers().items() if name in (arguments.only or [name])}
        for base, *_ in cases.values() if reach else ():
            kind = type(tl.proximal(base).metric)
            kind.reach_steps = reach
        for row in convex(cases) if arguments.part == "convex" else digits(cases, arguments.seeds):
            keep({"part": arguments.part, "reach": reach, **row}, arguments.out)


def keep(row: dict[str, Any], out: Path) -> None:
    print(row, flush=True)
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def convex(cases: dict[str, Any]) -> Any:
    """Yield the figures of each optimizer that can have the penalty."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scales = 10 ** (0.6 * torch.rand(16, generator=generator, dtype=torch.float64) - 0.3)
    x, truth = normal(200, 16) * scales + 0.5 * normal(200, 1), normal(16, 3) @ normal(3, 12)
    truth[8:] = 0
    y = x @ truth + 0.5 * normal(200, 12)

    def gradient(w: Tensor) -> Tensor:
        return x.T @ (x @ w - y) / len(x)

    for name, (penalty, lam) in PENALTIES.items():

        def objective(w: Tensor, penalty: tl.Penalty = penalty, lam: float = lam) -> float:
            return float((x @ w - y).square().sum() / (2 * len(x)) + penalty.value(w, lam))

        best = solution(penalty, lam, gradient, float(torch.linalg.matrix_norm(x, 2)) ** 2 / len(x))
        for case, (base, options, lr, _, falls) in cases.items():
            if not lr:
                continue
            w = nn.Parameter(torch.full((16, 12), 0.1, dtype=torch.float64))
            try:
                optimizer = tl.proximal(base)([w], lr=lr, penalty=penalty, lam=lam, **options)
            except ValueError as error:
                yield {"optimizer": case, "penalty": name, "refused": str(error)}
                continue
            train(optimizer, 3000, lr, falls, lambda w=w: setattr(w, "grad", gradient(w.detach())))
            found = penalty.support(w.detach())
            yield {
                "optimizer": case,
                "penalty": name,
                "above": objective(w.detach()) / objective(best) - 1,
                "wrong": int((found != penalty.support(best)).sum()),
                "blocks": found.numel(),
            }


def solution(penalty: tl.Penalty, lam: float, gradient: Callable[[Tensor], Tensor], curvature: float) -> Tensor:
    """Solve a problem by accelerated proximal gradients with restarts."""
    w = ahead = torch.zeros(16, 12, dtype=torch.float64)
    momentum = 1.0
    for _ in range(20_000):
        new = penalty.prox(ahead - gradient(ahead) / curvature, lam, 1 / curvature)
        momentum = 1.0 if ((ahead - new) * (new - w)).sum() > 0 else momentum
        later = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, w, momentum = new + (momentum - 1) / later * (new - w), new, later
    return w


def train(optimizer: Any, steps: int, lr: float, falls: bool, backward: Callable[[], None]) -> None:
    """Train with a rate that falls along a cosine, or in the mode of a schedule-free optimizer."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=lr * 1e-4)
    modes = optimizer.metric.averages_weights
    if modes:
        optimizer.train()
    for _ in range(steps):
        backward()
        optimizer.step()
        if falls:
            scheduler.step()
    if modes:
        optimizer.eval()


def digits(cases: dict[str, Any], seeds: list[int], lam: float = 1e-3, epochs: int = 40) -> Any:
    """Yield the figures of each optimizer."""
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    x = x.float() / 16
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held, fitted = order[:360], order[360:]
    for case, (base, options, _, lr, falls) in cases.items():
        if not lr:
            continue
        for seed in seeds:
            torch.manual_seed(seed)
            layers = [nn.Linear(a, b, bias=False) for a, b in ((64, 100), (100, 100), (100, 10))]
            model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
            optimizer = tl.proximal(base)(tl.param_groups(model, tl.L1(), lam=lam), lr=lr, **options)
            batches = (rows for _ in range(epochs) for rows in fitted[torch.randperm(len(fitted))].split(64))
            count = epochs * -(-len(fitted) // 64)

            def backward(model: nn.Module = model, optimizer: Any = optimizer, batches: Any = batches) -> None:
                rows = next(batches)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()

            train(optimizer, count, lr, falls, backward)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[fitted]), y[fitted])
            loss.backward()
            groups = optimizer.penalised_groups()
            error = (model(x[held]).argmax(dim=1) != y[held]).double().mean().item()
            weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
            yield {
                "optimizer": case,
                "seed": seed,
                "zeros": (weights == 0).double().mean().item(),
                "error": error,
                "objective": loss.item() + tl.penalty(groups).item(),
                "stationarity": tl.stationarity(groups).mean,
            }


if __name__ == "__main__":
    main()
