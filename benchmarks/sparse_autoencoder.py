"""Sparse autoencoders on the activations of a small network, scaled by 0.1, 1 and 10.

A network of 64-64-10 units is trained on scikit-learn's digits, shifted by up to a pixel and with noise. An autoencoder
with 256 units is trained on 20,000 of its hidden activations, times a scale: Adam, 3,000 batches of 256, the rate 2e-3
with a line to zero over the last fifth. TargetL0 steers λ to 12 active units per example. The decoder begins with
columns of length 1, and the encoder with its transpose. Nothing in the training knows the scale.

The figures are taken on 10,000 other activations: the mean number of active units, the units that none of them makes
active, and the share of the variance that is not explained.

    python benchmarks/sparse_autoencoder.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import torchlasso as tl

RESULTS = Path(__file__).parent / "results" / "sparse_autoencoder.jsonl"
WANTED, UNITS, STEPS, BATCH, RATE = 12, 256, 3000, 256, 2e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.1, 1.0, 10.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows, held = activations()
    for seed in arguments.seeds:
        for scale in arguments.scales:
            row = {"scale": scale, "seed": seed, "wanted": WANTED, **run(scale * rows, scale * held, seed)}
            print(row, flush=True)
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def activations() -> tuple[Tensor, Tensor]:
    """Train the network, and return hidden activations to train on and to judge on."""
    torch.manual_seed(0)
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))

    def batch(size: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(x), (size,))
        images = x[rows].float().reshape(-1, 8, 8) / 16
        moved = torch.stack([images.roll((i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)])
        shifted = moved[torch.randint(9, (size,)), torch.arange(size)].flatten(1)
        return shifted + 0.05 * torch.randn(size, 64), y[rows]

    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(600):
        inputs, targets = batch(256)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        return network[:2](batch(20_000)[0]), network[:2](batch(10_000)[0])


def run(rows: Tensor, held: Tensor, seed: int) -> dict[str, Any]:
    """Train an autoencoder, and return its figures."""
    torch.manual_seed(seed)
    coder = nn.Sequential(nn.Linear(64, UNITS), nn.ReLU(), nn.Linear(UNITS, 64))
    with torch.no_grad():
        columns = nn.functional.normalize(torch.randn(64, UNITS), dim=0)
        coder[2].weight.copy_(columns)
        coder[0].weight.copy_(columns.T)
        for layer in (coder[0], coder[2]):
            layer.bias.zero_()
    optimizer = torch.optim.Adam(coder.parameters(), lr=RATE)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 5 * (1 - step / STEPS)))
    term = tl.ActivationL1(coder[1], coder[2])
    control = tl.TargetL0(term, WANTED, STEPS)
    for _ in range(STEPS):
        x = rows[torch.randint(len(rows), (BATCH,))]
        optimizer.zero_grad()
        ((coder(x) - x).square().sum(dim=1).mean() + term()).backward()
        optimizer.step()
        scheduler.step()
        control.step()
    term.close()
    with torch.no_grad():
        active = coder[:2](held) != 0
        unexplained = (coder(held) - held).square().sum() / (held - held.mean(dim=0)).square().sum()
    return {
        "l0": active.sum(dim=1).double().mean().item(),
        "dead": (~active.any(dim=0)).double().mean().item(),
        "unexplained": unexplained.item(),
        "lam": term.lam,
        "reported": str(term.activity()),
    }


if __name__ == "__main__":
    main()
