"""The fused step against the reference over a whole training: the same zeros after every step, weights to rounding."""

import math

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import assert_alike, by_reference

pytestmark = pytest.mark.slow

STEPS = 200
HALF = 100  # of them, enough where no block has to come back
OPTIMIZERS = {
    "SGD": (tl.ProxSGD, {"lr": 0.4}),
    "SGD momentum": (tl.ProxSGD, {"lr": 0.04, "momentum": 0.9}),
    "SGD Nesterov": (tl.ProxSGD, {"lr": 0.04, "momentum": 0.9, "nesterov": True}),
    "Adam": (tl.ProxAdam, {"lr": 0.02}),
    "Adam amsgrad": (tl.ProxAdam, {"lr": 0.02, "amsgrad": True}),
    "AdamW": (tl.ProxAdamW, {"lr": 0.02, "weight_decay": 0.1}),
}
# one of each update with the most terms; tests of the single step compare the others
FULLEST = ["SGD Nesterov", "Adam amsgrad", "AdamW"]
# name of a parameter -> its penalty and λ, such that some of its weights are zero and some are not
ELEMENTS = {
    "conv.weight": (tl.L1(), 0.005),
    "rows.weight": (tl.LHalf(), 0.001),
    "gate": (tl.L1(), 0.005),
    "chunks.weight": (tl.MCP(), 0.015),
    "heads.weight": (tl.SCAD(), 0.015),
    "columns.weight": (tl.LogSum(), 0.01),
    "one.weight": (tl.ElasticNet(), 0.03),
}
# name of a parameter -> its blocks, and what λ is multiplied by
BLOCKS = {
    "conv.weight": (tl.Filters(), 1.0),
    "rows.weight": (tl.Rows(weighted=False), 2.0),
    "gate": (tl.Rows(), 1.0),  # of one weight each
    "chunks.weight": (tl.Chunks(n=4), 1.0),
    "heads.weight": (tl.Heads(n=4), 1.0),  # this one and the next are done by a prox after a fused update
    "columns.weight": (tl.Columns(), 1.0),
    "one.weight": (tl.Rows(), 3.0),  # a single one
}
PENALTIES = {"L1": (tl.L1, 0.008), "ElasticNet": (tl.ElasticNet, 0.014), "MCP": (tl.MCP, 0.05), "SCAD": (tl.SCAD, 0.04)}


class Network(nn.Module):
    """Layers side by side, one for every kind of blocks."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(2, 8, 3)
        self.rows = nn.Linear(12, 10)
        self.gate = nn.Parameter(torch.randn(10) / 2)
        self.chunks = nn.Linear(12, 8)
        self.heads = nn.Linear(12, 8)
        self.columns = nn.Linear(12, 6)
        self.one = nn.Linear(12, 1)
        self.out = nn.Linear(41, 3)

    def forward(self, x):
        conv = self.conv(x.view(-1, 2, 6)).tanh().mean(2)
        parts = self.rows(x).tanh() * self.gate, self.chunks(x), self.heads(x), self.columns(x), self.one(x)
        return self.out(torch.cat([conv, *parts], dim=1).tanh())


def loss_of(model: nn.Module, step: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(16, 12, generator=generator, dtype=torch.float64)
    noise = torch.randn(16, 3, generator=generator, dtype=torch.float64)
    y = torch.stack([x[:, 0] + x[:, 7], (2 * x[:, 1]).sin(), x[:, 2] * x[:, 3]], dim=1) + 0.3 * noise
    return (model(x.to(dtype)) - y.to(dtype)).square().mean()


def third(case: str) -> dict:
    """A third of the penalties of single weights for each update: a kernel puts the functions of the two together."""
    return dict(list(ELEMENTS.items())[FULLEST.index(case) :: len(FULLEST)])


def over_blocks(name: str) -> dict:
    cls, lam = PENALTIES[name]
    return {parameter: (cls(over=blocks), lam * share) for parameter, (blocks, share) in BLOCKS.items()}


def train(case: str, penalised: dict, swing: float, dtype=torch.float64, steps: int = STEPS, fused: bool = True):
    """The penalised weights, and which of them were zero after each step. λ swings, and is 0 for a while beyond 1."""
    model = Network().to(dtype)
    params = dict(model.named_parameters())
    ours = [params.pop(name) for name in penalised]
    groups = [
        {"params": [p], "penalty": penalty, "lam": lam}
        for p, (penalty, lam) in zip(ours, penalised.values(), strict=True)
    ]
    cls, options = OPTIMIZERS[case]
    optimizer = cls([*groups, {"params": list(params.values()), "penalty": None}], **options, fused=fused)
    if not fused:
        by_reference(optimizer)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    zeros = []
    for step in range(steps):
        for group, (_, lam) in zip(optimizer.param_groups, penalised.values(), strict=False):
            group["lam"] = lam * max(0.0, 1 + swing * math.sin(step / 6))
        optimizer.zero_grad()
        loss_of(model, step, dtype).backward()
        optimizer.step()
        scheduler.step()
        zeros.append([p.detach() == 0 for p in ours])
    return [p.detach() for p in ours], [torch.stack(each) for each in zip(*zeros, strict=True)]


def both(*args, **kwargs):
    """By the reference, and by the fused step."""
    return train(*args, **kwargs, fused=False), train(*args, **kwargs)


def assert_same_training(theirs, ours, penalised) -> None:
    for name, w, u, zeros, found in zip(penalised, theirs[0], ours[0], theirs[1], ours[1], strict=True):
        assert torch.equal(zeros, found), f"{name}: other zeros from step {int((zeros != found).nonzero()[0, 0])} on"
        assert_alike(u, w)


def events(zeros: torch.Tensor, over) -> tuple[int, int, int]:
    """Count how often a block became zero, became nonzero, and stayed zero."""
    dead = torch.stack([over.rows(each.double())[0].all(dim=1) for each in zeros])
    before, after = dead[:-1], dead[1:]
    return int((~before & after).sum()), int((before & ~after).sum()), int((before & after).sum())


# --- single weights ---


@pytest.mark.parametrize("case", FULLEST)
def test_single_weights(case):
    penalised = third(case)
    theirs, ours = both(case, penalised, 1.2, steps=HALF)
    assert_same_training(theirs, ours, penalised)
    for name, zeros in zip(penalised, theirs[1], strict=True):
        assert zeros[HALF // 2 :].any(), name
        assert not zeros[-1].all(), name


# --- groups ---


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("SGD", "SCAD"),
        ("SGD momentum", "ElasticNet"),
        ("SGD Nesterov", "MCP"),
        ("Adam amsgrad", "L1"),
        ("AdamW", "L1"),
    ],
)
def test_groups(case, name):
    penalised = over_blocks(name)
    theirs, ours = both(case, penalised, 0.9)
    assert_same_training(theirs, ours, penalised)
    counts = {parameter: events(each, BLOCKS[parameter][0]) for parameter, each in zip(BLOCKS, theirs[1], strict=True)}
    for parameter, (died, revived, stayed) in counts.items():
        assert died, parameter
        assert stayed, parameter
        assert revived or name in ("MCP", "SCAD"), parameter
    assert counts["chunks.weight"][1] > 0


# --- single precision ---


@pytest.mark.parametrize(("case", "name"), [("SGD momentum", "L1"), ("Adam amsgrad", "single weights")])
def test_single_precision(case, name):
    # a zero may come a step sooner or later, and later weights may differ
    penalised, swing = (third(case), 1.2) if name == "single weights" else (over_blocks(name), 0.9)
    theirs, ours = both(case, penalised, swing, torch.float32, steps=HALF)
    zeros, found = (torch.cat([each.flatten() for each in result[1]]) for result in (theirs, ours))
    assert (zeros != found).sum() <= 0.001 * zeros.sum()
    weights, fused = (torch.cat([w.flatten() for w in result[0]]) for result in (theirs, ours))
    assert weights.dtype == fused.dtype == torch.float32
    assert ((weights - fused).abs() > 1e-4).sum() <= 0.01 * weights.numel()
