"""Complex weights under every known optimizer: the solution of a complex lasso, or a refusal before the first step."""

import importlib

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.optim.metric import METRICS, OF_PACKAGES

LAM, STEPS = 0.3, 400
# Rates that suit the problem; the others have 0.03.
RATES = {"SGD": 0.5, "Adagrad": 0.5, "SGDScheduleFree": 0.5, "RAdam": 0.2, "AdamW": 0.05}
REFUSED = {
    *("Adafactor", "Muon", "foreach.Lion", "AdamWScheduleFree", "RAdamScheduleFree"),
    *(f"{name}{bits}" for name in ("Adam", "AdamW") for bits in ("8bit", "4bit", "Fp8")),
}


def known() -> list[str]:
    """Return the names of all optimizers that have a metric, or none by their nature, with their modules."""
    return [*(f"{cls.__module__}.{cls.__qualname__}" for cls in METRICS), *OF_PACKAGES]


def class_of(name: str) -> type[torch.optim.Optimizer]:
    module, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(module), cls)


def optimizer_for(name: str, w: nn.Parameter) -> torch.optim.Optimizer:
    cls = class_of(name)
    options = {"relative_step": False} if name.startswith("transformers") else {}
    options |= {"weight_decay": 0.0} if cls.__name__ == "AdamW" else {}
    return tl.proximal(cls)([w], lr=RATES.get(cls.__name__, 0.03), penalty=tl.L1(), lam=LAM, **options)


def is_refused(name: str) -> bool:
    return any(name.endswith(f".{refused}") for refused in REFUSED)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in known() if not is_refused(name)])
def test_the_limit_is_the_solution(name):
    random = torch.Generator().manual_seed(0)
    curvature = 10 ** (torch.rand(8, 8, generator=random) - 0.5)
    target = torch.randn(8, 8, generator=random, dtype=torch.complex64)
    solution = target.sgn() * (target.abs() - LAM / curvature).clamp_min(0)  # of ½c|w − target|² + λ|w|
    w = nn.Parameter(torch.full((8, 8), 0.1, dtype=torch.complex64))
    optimizer = optimizer_for(name, w)
    averages = hasattr(optimizer, "eval")
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=1e-5)
    if averages:
        optimizer.train()
    for _ in range(STEPS):
        w.grad = curvature * (w.detach() - target)
        optimizer.step()
        if not averages:
            scheduler.step()
    if averages:
        optimizer.eval()
    torch.testing.assert_close(w.detach(), solution, rtol=0, atol=0.03)
    assert torch.equal(w == 0, solution == 0)
    assert 0 < (solution == 0).sum() < solution.numel()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torchao registers its enums in the old way
@pytest.mark.parametrize("name", [name for name in known() if is_refused(name)])
def test_an_optimizer_of_real_numbers_refuses_them(name):
    w = nn.Parameter(torch.ones(4, 4, dtype=torch.complex64))
    with pytest.raises(TypeError, match=rf"^{class_of(name).__name__} does not support complex parameters: use"):
        optimizer_for(name, w)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad])
def test_a_fused_step_with_a_penalty_is_refused(base):
    w = nn.Parameter(torch.ones(4, dtype=torch.complex64))
    with pytest.raises(TypeError, match="complex parameters cannot have fused=True: leave it out"):
        tl.proximal(base)([w], lr=0.1, penalty=tl.L1(), lam=LAM, fused=True)
