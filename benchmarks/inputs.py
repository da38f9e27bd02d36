"""Live inputs after trainings of different lengths, with and without the weight decay that comes with ``Inputs``.

    python benchmarks/inputs.py            # all of it: minutes
    python benchmarks/inputs.py --steps 300

3 of 20 inputs matter: y = x₀x₁ + sin 2x₂ + noise, 1,000 rows, batches of 100, Adam, cosine from 0.01.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn

import torchlasso as tl


def rows(seed: int, n: int = 1000) -> tuple[Tensor, Tensor]:
    """Return inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 20, generator=generator)
    noise = 0.1 * torch.randn(n, 1, generator=generator)
    return x, x[:, :1] * x[:, 1:2] + torch.sin(2 * x[:, 2:3]) + noise


def train(steps: int, seed: int, lam: float, decay: bool) -> tuple[int, bool]:
    """Return the number of live inputs, and whether those that matter are among them."""
    x, y = rows(seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 50), nn.ReLU(), nn.Linear(50, 1))
    inputs = tl.Inputs(model, x[:2])
    rules = [tl.Rule("*", tl.L1(over=inputs)), *([] if decay else [tl.Rule("*", None)])]
    optimizer = tl.ProxAdam(tl.param_groups(model, rules, lam=lam), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = torch.randint(len(x), (100,), generator=generator)
        optimizer.zero_grad()
        (model(x[batch]) - y[batch]).square().mean().backward()
        optimizer.step()
        scheduler.step()
    live = inputs.live(model)
    return int(live.sum()), bool(live[:3].all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[300, 3000, 30000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lam", type=float, default=0.02)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for steps in args.steps:
        for decay in (True, False):
            found = [train(steps, seed, args.lam, decay) for seed in range(args.seeds)]
            live, all_true = (", ".join(map(str, column)) for column in zip(*found, strict=True))
            print(
                f"{steps:6} steps, {'with' if decay else 'without'} decay: {live} live; all 3 among them: {all_true}",
                flush=True,
            )


if __name__ == "__main__":
    main()
