"""Does it help to keep what is below the threshold as latent weights? LeNet-300-100 on MNIST, validation images.

Adam updates latent weights u by gradients at w = sign(u)·max(|u| − t, 0). In ``--threshold quantile`` t is one for all
weights, the one at which the share of zeros is what is wanted now, which rises to the target while λ rises in the
others; in ``--threshold metric`` it is λ times the sum of the step lengths of each weight, which is dual averaging
(Xiao 2010) in Adam's metric. Then, for the rest of training, the zeros are held and nothing is penalised. All else is
as in peers.py, whose trials these are to be compared with.

    python benchmarks/latent.py --data FOLDER_WITH_MNIST --threshold quantile --zeros 0.9 0.95
"""

from __future__ import annotations

import argparse

import torch
from peers import TRIAL, TRIAL_SEEDS, Hooks, Method, Network, read, train
from torch import Tensor
from torch.optim import Adam, Optimizer
from tuning import Sweeps

HELD = 0.4  # of training, at its end


class Latent(Optimizer):
    """Adam on latent weights, whose thresholded form is what the network computes with."""

    def __init__(self, network: Network, zeros: float, steps: int, rate: float, lam: float | None) -> None:
        self.inner = Adam([*network.weights, *network.others], lr=rate, fused=True)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state
        self.weights, self.zeros, self.lam = network.weights, zeros, lam
        self.latent = [w.detach().clone() for w in self.weights]
        self.moved = [torch.zeros_like(w) for w in self.weights]  # the sum of the step lengths
        self.done, self.until = 0, round((1 - HELD) * steps)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.done += 1
        if self.done > self.until:
            masks = [w != 0 for w in self.weights]
            for w, mask in zip(self.weights, masks, strict=True):
                w.grad *= mask
            self.inner.step()
            for w, mask in zip(self.weights, masks, strict=True):
                w *= mask
            return
        for w, u in zip(self.weights, self.latent, strict=True):
            w.copy_(u)
        self.inner.step()
        for w, u in zip(self.weights, self.latent, strict=True):
            u.copy_(w)
        for w, u, t in zip(self.weights, self.latent, self.thresholds(), strict=True):
            w.copy_(u.sign() * (u.abs() - t).clamp_min(0))

    def thresholds(self) -> list[Tensor]:
        if self.lam is None:
            share = 1 - (1 - self.zeros) ** (self.done / self.until)
            flat = torch.cat([u.abs().flatten() for u in self.latent])
            return [flat.kthvalue(max(1, round(share * len(flat)))).values] * len(self.latent)
        for w, moved in zip(self.weights, self.moved, strict=True):
            state, group = self.state[w], self.param_groups[0]
            corrected = state["exp_avg_sq"] / (1 - group["betas"][1] ** state["step"])
            moved += group["lr"] / (corrected.sqrt() + group["eps"])
        return [self.lam * moved for moved in self.moved]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--threshold", choices=("quantile", "metric"), default="quantile")
    parser.add_argument("--zeros", type=float, nargs="+", default=[0.9, 0.95, 0.98, 0.99], help="with quantile")
    parser.add_argument("--lam", type=float, nargs="+", default=[1e-4, 4e-4], help="with metric")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(arguments.data, None)[TRIAL]
    by_share = arguments.threshold == "quantile"
    for value in arguments.zeros if by_share else arguments.lam:
        zeros, lam = (value, None) if by_share else (0.0, value)

        def make(network: Network, zeros: float, steps: int, rate: float, lam: float | None = lam) -> Hooks:
            return Hooks(Latent(network, zeros, steps, rate, lam))

        knobs = {"rate": arguments.rate, "schedule": "cosine", "dropout": 0.0}
        found = train(Method(make, Sweeps()), zeros, knobs, rows, arguments.epochs, TRIAL_SEEDS[0])
        print(
            f"{arguments.threshold} {value:g}, rate {arguments.rate:g}: {100 * found['zeros']:.2f} % zeros, "
            f"{100 * found['error']:.2f} % error, {found['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
