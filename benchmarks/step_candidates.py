"""The optimizers whose steps step.py times, and the shapes of the parameters in its cases."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

import torchlasso as tl

LR, LAM, THETA = 1e-3, 1e-4, 0.2
Params = list[nn.Parameter]
Shape = tuple[int, ...]


def resnet_50() -> list[Shape]:
    """Return the shapes of ResNet-50: convolutions, each with its norm, and a layer for 1,000 classes."""

    def convolution(into: int, out: int, kernel: int) -> list[Shape]:
        return [(out, into, kernel, kernel), (out,), (out,)]

    shapes, channels = convolution(3, 64, 7), 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += convolution(channels, width, 1) + convolution(width, width, 3) + convolution(width, 4 * width, 1)
            if block == 0:
                shapes += convolution(channels, 4 * width, 1)  # the shortcut
            channels = 4 * width
    shapes += [(1000, channels), (1000,)]
    assert (len(shapes), sum(map(prod, shapes))) == (161, 25_557_032)
    return shapes


CASES: dict[str, list[Shape]] = {
    "a": [(64, 64, 3, 3)] * 60 + [(2048, 1024)] * 4,
    "b": resnet_50(),
    "c": [(10**8,)],
    "d": [(1000,)] * 1000,
}


class Setting(NamedTuple):
    device: str
    threads: int
    rounds: int
    small: bool

    def reduced(self, *shapes: Shape) -> list[Shape]:
        if not self.small:
            return list(shapes)
        return [(*(max(1, n // 10) for n in s[:2]), *s[2:]) if s[1:] else (max(1, s[0] // 100),) for s in shapes]

    def parameters(self, shapes: list[Shape], dtype: torch.dtype = torch.float32) -> Params:
        """Return weights with gradients, the same for every candidate."""
        generator = torch.Generator(self.device).manual_seed(0)
        params = []
        for shape in shapes:
            w, grad = (torch.randn(shape, generator=generator, device=self.device, dtype=dtype) for _ in range(2))
            params.append(nn.Parameter(w.mul_(0.02)))
            params[-1].grad = grad.mul_(1e-3)
        return params


class Candidate(NamedTuple):
    step: Callable[[], Any]
    restore: Callable[[], Any] = bool  # done after a step and not timed; by default nothing


class Kind(NamedTuple):
    """A torch optimizer and its proximal form, with the candidates made from them."""

    base: type[Optimizer]
    prox: type[tl.Proximal]
    options: dict[str, Any]

    def plain(self, params: Any, **options: Any) -> Candidate:
        return Candidate(self.base(params, **self.options, **options, fused=True).step)

    def l1(self, params: Any, fused: bool = True, **options: Any) -> Candidate:
        return Candidate(self.prox(params, **self.options, **options, fused=fused, penalty=tl.L1(), lam=LAM).step)

    def eager_loop(self, params: Params) -> Candidate:
        return self.l1(params, fused=False, foreach=False)

    def latent(self, params: Params) -> Candidate:
        return self.l1(params, form="latent")

    def reweighted(self, params: Params) -> Candidate:
        """Return the latent form with a threshold for each weight."""
        optimizer = self.prox(params, **self.options, fused=True, penalty=tl.L1(), lam=LAM, form="latent")
        control = tl.Reweighted(optimizer, theta=THETA)

        def step() -> None:
            optimizer.step()
            control.step()

        return Candidate(step)

    def latent_group_lasso(self, params: Params) -> Candidate | None:
        return self.group_lasso(params, form="latent")

    def group_lasso(self, params: Params, **options: Any) -> Candidate | None:
        filters, others = [p for p in params if p.dim() > 1], [p for p in params if p.dim() < 2]
        pairs = ((filters, tl.L1(over=tl.Filters())), (others, None))
        groups = [{"params": some, "penalty": penalty} for some, penalty in pairs if some]
        return self.l1(groups, **options) if filters else None

    def loss_term(self, params: Params) -> Candidate:
        groups = [{"params": params, "penalty": tl.L1(), "lam": LAM}]
        plain, grads = self.plain(params), [p.grad for p in params]
        kept = [grad.clone() for grad in grads]

        def step() -> None:
            tl.penalty(groups).backward()  # adds to the gradients
            plain.step()

        return Candidate(step, lambda: torch._foreach_copy_(grads, kept))

    def pat(self, params: Params) -> Candidate | None:
        try:
            from torchao.prototype.pat.optim import PruneOptimizer
        except ImportError:
            return None
        group = {"params": params, "prox_type": "ProxLasso", "group_type": "ElemGrouper"}
        return Candidate(PruneOptimizer(self.base([group], **self.options, fused=True), reg_lambda=LAM).step)


ADAMW = Kind(torch.optim.AdamW, tl.ProxAdamW, {"lr": LR})
SGD = Kind(torch.optim.SGD, tl.ProxSGD, {"lr": LR, "momentum": 0.9})
CANDIDATES: dict[str, Callable[[Kind, Params], Candidate | None]] = {
    "torch": Kind.plain,
    "L1": Kind.l1,
    "group lasso": Kind.group_lasso,
    "latent": Kind.latent,
    "reweighted": Kind.reweighted,
    "latent group": Kind.latent_group_lasso,
    "eager loop": Kind.eager_loop,
    "loss term": Kind.loss_term,
    "PAT": Kind.pat,
}
SLOW = {"eager loop", "loss term", "PAT"}
