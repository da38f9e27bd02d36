"""Steps with factors on λ, one for each parameter or block, and the same with λ multiplied by hand."""

import functools
import math

import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import options_of, random_gradients
from tests.support.optimizers import CASES

STEPS = 15
SHAPES = [(4, 3), (3, 3), (2, 3)]
# name -> a penalty, and a λ for which some weights become zero
PENALTIES = {"elements": (tl.L1(), 0.3), "MCP": (tl.MCP(gamma=3.0), 0.3), "rows": (tl.L1(over=tl.Rows()), 1.6)}
SCALES = {0: [1.0, 0.25, 0.0], STEPS // 3: [0.5, 0.5, 2.0], 2 * STEPS // 3: [1.0, 0.0, 1.0]}  # from a step on


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64) / 8) for shape in SHAPES]


def make(case: str, ws, kind: str = "elements", implementation: str = "one by one") -> tl.Proximal:
    penalty, lam = PENALTIES[kind]
    options = options_of(case, implementation)
    return tl.proximal(CASES[case][0])(ws, penalty=penalty, lam=lam, **options)


def factors(kind: str, p: torch.Tensor, i: int, step: int) -> torch.Tensor:
    """Weights of the blocks of a parameter: they change every step, and some are 0."""
    shape = p.shape[:1] if kind == "rows" else p.shape
    generator = torch.Generator().manual_seed(1000 * i + step)
    return (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 0.4).clamp_min(0)


def scales_at(step: int) -> list[float]:
    return next(scales for start, scales in reversed(SCALES.items()) if step >= start)


def run(optimizer: tl.Proximal, ws, change, silent: bool = False, steps=range(STEPS)) -> torch.Tensor:
    """Train with ``change(step)`` before each step, at a rate that falls; the weights after it."""
    for step in steps:
        random_gradients(ws, step)
        if silent and step % 3 == 1:
            ws[1].grad = None
        for group in optimizer.param_groups:
            group["lr"] = optimizer.defaults["lr"] * (1 + math.cos(math.pi * step / STEPS)) / 2
        change(step)
        optimizer.step()
    return flat(ws)


def flat(ws) -> torch.Tensor:
    return torch.cat([w.detach().reshape(-1) for w in ws])


def scaled(case, kind, implementation, silent=False) -> torch.Tensor:
    ws = parameters()
    optimizer = make(case, ws, kind, implementation)

    def change(step):
        optimizer.param_groups[0]["lam_scales"] = list(scales_at(step))

    return run(optimizer, ws, change, silent)


@functools.cache
def scaled_by_hand(case, kind, silent=False) -> torch.Tensor:
    ws = parameters()
    optimizer = make(case, [{"params": [w]} for w in ws], kind)

    def change(step):
        for group, scale in zip(optimizer.param_groups, scales_at(step), strict=True):
            group["lam"] = PENALTIES[kind][1] * scale

    return run(optimizer, ws, change, silent)


def weighted(case, kind, implementation, weigh=(0, 2), scaling: bool = False) -> torch.Tensor:
    ws = parameters()
    optimizer = make(case, ws, kind, implementation)

    def change(step):
        for i in weigh:
            optimizer.weights[ws[i]] = factors(kind, ws[i], i, step)
        if scaling:
            optimizer.param_groups[0]["lam_scales"] = list(scales_at(step))

    return run(optimizer, ws, change)


@functools.cache
def weighted_by_hand(case, kind, weigh=(0, 2), scaling: bool = False) -> torch.Tensor:
    """Make every block a separate parameter with its own λ, and divide the gradients in the same way."""
    ws = parameters()
    parts = [list(w.detach().split(1)) if kind == "rows" else list(w.detach().reshape(-1).split(1)) for w in ws]
    blocks = [[nn.Parameter(part.clone()) for part in some] for some in parts]
    optimizer = make(case, [{"params": [b]} for some in blocks for b in some], kind)

    def change(step):
        random_gradients(ws, step)
        groups = iter(optimizer.param_groups)
        for i, (w, some) in enumerate(zip(ws, blocks, strict=True)):
            lams = factors(kind, w, i, step).reshape(-1).tolist() if i in weigh else [1.0] * len(some)
            for b, grad, lam in zip(some, w.grad.reshape(len(some), -1), lams, strict=True):
                b.grad = grad.reshape(b.shape).clone()
                next(groups)["lam"] = PENALTIES[kind][1] * lam * (scales_at(step)[i] if scaling else 1.0)

    return run(optimizer, [b for some in blocks for b in some], change)
