"""Many trainings on a Ray cluster: learning rates and shares of zeros of a network for handwritten digits.

pip install 'torchlasso[ray]' scikit-learn
python examples/ray_sweep.py              # a local cluster of two workers
RAY_ADDRESS=auto python examples/ray_sweep.py 64    # 64 trainings at once on a running cluster

On the command line: torchlasso sweep --engine ray --vary lr=1e-3,5e-3 --vary sparsity=0.8,0.9,0.95 …
"""

import itertools
import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import torchlasso as tl
from torchlasso.engine import Engine

EPOCHS = 15
RATES, ZEROS = (1e-3, 5e-3), (0.8, 0.9, 0.95)


def trained(rate: float, zeros: float) -> tuple[float, float]:
    """Train a network; return the share of zeros and the error on the validation rows."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    x, y, x_held, y_held = x[:1400], y[:1400], x[1400:], y[1400:]
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.05), lr=rate, form="latent")
    steps = EPOCHS * len(x.split(100))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    control = tl.TargetSparsity(optimizer, zeros, steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            scheduler.step()
            control.step()
    return tl.report(model).sparsity, (model(x_held).argmax(1) != y_held).double().mean().item()


def main(engine: str = "ray", jobs: int = 2) -> dict[tuple[float, float], tuple[float, float]]:
    found = {}
    with Engine(engine, jobs).started() as workers:
        for values, result in workers.run(trained, itertools.product(RATES, ZEROS), lambda values: values):
            found[values] = result
            print(f"lr {values[0]:g}: {result[0]:.1%} zeros, validation error {result[1]:.1%}")  # as they fall
    for zeros in ZEROS:
        best = min(RATES, key=lambda rate: found[rate, zeros][1])
        print(f"{zeros:.0%} zeros: lr {best:g} is best, with an error of {found[best, zeros][1]:.1%}")
    return found


if __name__ == "__main__":
    main(jobs=int(sys.argv[1]) if len(sys.argv) > 1 else 2)
