"""Controllers of λ under DDP and FSDP2: on every process the λ of one process, and the same zeros."""

from __future__ import annotations

import copy
import io
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

import torchlasso as tl
from tests.support.cluster import Cluster
from tests.support.pairwise import cover
from torchlasso.distributed.sharding import local, whole
from torchlasso.optim.rising import growing, rescaled

CLUSTER = Cluster()
STEPS = 12
OPTIMIZERS = {
    "ProxSGD": (tl.ProxSGD, {"lr": 0.05, "momentum": 0.9}),
    "ProxAdam": (tl.ProxAdam, {"lr": 0.05}),
    "latent": (tl.ProxAdam, {"lr": 0.05, "form": "latent"}),
}
RULES = {
    "elements": [tl.Rule("2.*", tl.L1(), scale=0.5), tl.Rule("*", tl.L1())],
    "rows": [tl.Rule("*", tl.L1(over=tl.Rows()))],
    "columns": [tl.Rule("4.*", tl.L1()), tl.Rule("*", tl.L1(over=tl.Columns()))],  # which FSDP2 cuts
}


def reference_for(optimizer: tl.Proximal) -> dict:
    """Magnitudes for the adaptive lasso, sharded as the parameters are."""
    params = [p for group in optimizer.penalised_groups() for p in group["params"]]
    return {p: torch.full_like(p.detach(), 0.1 * (i + 1)) for i, p in enumerate(params)}


CONTROLS = {
    "all": lambda optimizer: [
        tl.TargetSparsity(optimizer, 0.7, steps=STEPS, warmup=0.25, tolerance=1.0),
        tl.Warmup(optimizer, steps=STEPS // 2),
        tl.Reweighted(optimizer, theta=0.2),
    ],
    "target of groups": lambda optimizer: [
        tl.TargetSparsity(optimizer, 0.6, steps=STEPS, scope="group", warmup=0.0, tolerance=1.0)
    ],
    "held": lambda optimizer: [
        tl.TargetSparsity(optimizer, 0.6, steps=STEPS - 6, tolerance=1.0),
        tl.Reweighted(optimizer, theta=0.2),
        tl.Hold(optimizer, STEPS, share=0.25),
    ],
    "adaptive": lambda optimizer: [tl.Reweighted(optimizer, theta=0.2, q=2.0, reference=reference_for(optimizer))],
}


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)  # over two processes 7 rows are 4 and 3, and 1 is 1 and none
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp(model: nn.Module) -> nn.Module:
    fully_shard(model[0])
    return fully_shard(model)


class Run:
    """A training, on this process's rows if the model is wrapped."""

    def __init__(self, wrap, name: str, rules: str, controls: str, *, seed: int = 0, lam: float = 0.15, **options):
        self.model = network(seed)
        self.forward = wrap(self.model) if wrap else self.model
        first = 4 * dist.get_rank() if wrap else 0
        self.rows = slice(first, first + 4 if wrap else None)
        cls, defaults = OPTIMIZERS[name]
        self.optimizer = cls(tl.param_groups(self.model, RULES[rules], lam=lam), **defaults, **options)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)
        self.controls = CONTROLS[controls](self.optimizer)
        self.had_zeros = False

    def train(self, steps=range(STEPS)) -> list[list[float]]:
        found = []
        for step in steps:
            x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step % 3), dtype=torch.float64)
            x, y = x[self.rows], torch.tanh(x[:, :1] - x[:, 1:2])[self.rows]
            self.optimizer.zero_grad()
            (self.forward(x) - y).square().mean().backward()
            self.optimizer.step()
            self.scheduler.step()
            for control in self.controls:
                control.step()
            found.append(self.controls[0].lam)
            self.had_zeros |= any(bool((local(p.detach()) == 0).any()) for p in self.model.parameters())
        return found

    def parts(self) -> list:
        return [self.model, self.optimizer, self.scheduler, *self.controls]

    def weights(self) -> list[torch.Tensor]:
        """The factors on λ of all blocks, whole, where they are tensors."""
        params = [p for group in self.optimizer.penalised_groups() for p in group["params"]]
        found = [self.optimizer.weights.get(p) for p in params]
        return [whole(weights) for weights in found if isinstance(weights, torch.Tensor)]


def assert_as_alone(run: Run, lams: list, plain: Run, expected: list) -> None:
    for ours, theirs in zip(lams, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    for p, q in zip(run.model.parameters(), plain.model.parameters(), strict=True):
        p, q = whole(p.detach()), q.detach()
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9)
        assert torch.equal(p == 0, q == 0)
    for weights, theirs in zip(run.weights(), plain.weights(), strict=True):
        torch.testing.assert_close(weights, theirs, rtol=1e-9, atol=1e-9)
    assert plain.had_zeros


def compare(wrap, name: str, rules: str, controls: str, **options) -> None:
    plain, run = Run(None, name, rules, controls, **options), Run(wrap, name, rules, controls, **options)
    assert any(isinstance(p, DTensor) for p in run.model.parameters()) == (wrap is fsdp)
    expected, lams = plain.train(), run.train()
    assert_as_alone(run, lams, plain, expected)
    for control, theirs in zip(run.controls, plain.controls, strict=True):
        if isinstance(control, tl.TargetSparsity):
            assert control.left == theirs.left
            assert control.strengths == pytest.approx(theirs.strengths, rel=1e-9, abs=1e-12)
    scales, others = ([g["lam_scales"] for g in each.optimizer.param_groups] for each in (run, plain))
    assert scales == others


for wrap in (ddp, fsdp):
    for rules in RULES:
        CLUSTER.scenario(f"{wrap.__name__}, all, {rules}", wrap, "ProxAdam", rules, "all")(compare)
    # a target in the latent form asks all processes in every trial of its search: few scenarios
    for rules in ("elements", "rows") if wrap is fsdp else ("elements",):
        CLUSTER.scenario(f"{wrap.__name__}, latent, {rules}", wrap, "latent", rules, "held")(compare)
    for controls in CONTROLS:
        CLUSTER.scenario(f"{wrap.__name__}, {controls}", wrap, "ProxSGD", "elements", controls)(compare)
    for rules in ("rows", "columns"):
        CLUSTER.scenario(f"{wrap.__name__}, adaptive, {rules}", wrap, "ProxAdam", rules, "adaptive")(compare)


@CLUSTER.scenario("the fused step, DDP", ddp)
@CLUSTER.scenario("the fused step, FSDP", fsdp)
def fused(wrap) -> None:
    plain, run = Run(None, "ProxAdam", "elements", "all"), Run(wrap, "ProxAdam", "elements", "all", fused=True)
    expected, lams = plain.train(), run.train()
    assert_as_alone(run, lams, plain, expected)


@CLUSTER.scenario("layers are kept, DDP", ddp)
@CLUSTER.scenario("layers are kept, FSDP", fsdp)
def kept(wrap) -> None:
    # λ is so large that it has to be lowered where hardly any weights are left, counting all processes
    plain, run = (Run(each, "ProxSGD", "elements", "target of groups", lam=0.5) for each in (None, wrap))
    expected, lams, lowered = [], [], False
    for step in range(STEPS):
        expected += plain.train([step])
        lams += run.train([step])
        scales, others = ([g["lam_scales"] for g in each.optimizer.param_groups] for each in (run, plain))
        assert scales == others
        lowered |= min(map(min, scales)) < 1
    assert lowered
    assert_as_alone(run, lams, plain, expected)


@CLUSTER.scenario("a budget, DDP")
def budget() -> None:
    plain, run = (Run(wrap, "ProxAdam", "rows", "all") for wrap in (None, ddp))
    sample = torch.randn(8, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for each in (plain, run):
        each.controls = [tl.TargetBudget(each.optimizer, each.model, sample, flops=0.4, steps=STEPS)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tl.TargetMissed)  # a unit is more than a point
        expected, lams = plain.train(), run.train()
    assert_as_alone(run, lams, plain, expected)
    assert run.controls[0].closing.held
    assert 0.25 < run.controls[0].left[0] == plain.controls[0].left[0] <= 0.4


@CLUSTER.scenario("a trial of a search is one exchange")
def trial() -> None:
    run = Run(fsdp, "latent", "elements", "held")
    run.train(range(2))
    pairs = zip(run.optimizer.param_groups, run.optimizer.penalties, strict=True)
    (group,) = (group for group, penalty in pairs if penalty is not None and len(group["params"]) > 1)
    for rise in (growing(run.optimizer, group, 0.1), rescaled(run.optimizer, group, {})):
        shares = []
        for factor in (1.0, 10.0, 100.0):
            with CommDebugMode() as talk:
                kept = rise.at(factor).kept
            assert talk.get_total_counts() == 1
            weights = [whole(w) for w in rise.reference(factor)]
            assert kept == [int(w.count_nonzero()) for w in weights]
            shares.append(sum(kept) / sum(w.numel() for w in weights))
        assert any(0 < share < 1 for share in shares), shares


@CLUSTER.scenario("a budget refuses shards")
def refused() -> None:
    model = network()
    fsdp(model)
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Rows()), lam=0.1), lr=0.1)
    told = r"^TargetBudget: it needs whole parameters, and these are sharded; TargetSparsity can do with shards$"
    with pytest.raises(ValueError, match=told):
        tl.TargetBudget(optimizer, model, torch.randn(8, 6, dtype=torch.float64), flops=0.5, steps=10)


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resume(wrap, rules: str, way, name: str = "ProxAdam", controls: str = "all") -> None:
    """Each process keeps its own state, as it keeps its own shards."""
    first, again = (Run(wrap, name, rules, controls, seed=seed) for seed in (0, 1))
    plain = Run(None, name, rules, controls)
    expected = plain.train()
    half = STEPS // 2
    assert first.train(range(half)) == [pytest.approx(lam, rel=1e-9) for lam in expected[:half]]
    saved = way([part.state_dict() for part in first.parts()])
    later = first.train(range(half, STEPS))
    for part, state in zip(again.parts(), saved, strict=True):
        part.load_state_dict(state)
    assert again.train(range(half, STEPS)) == later
    for p, q in zip(again.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(local(p.detach()), local(q.detach()))
    assert_as_alone(again, later, plain, expected[half:])


# any two of the kind of process group, the rules and the way to keep a state meet once
for wrap, rules, way in cover([[ddp, fsdp], ["elements", "rows"], [copy.deepcopy, through_a_file]], 2):
    CLUSTER.scenario(f"{wrap.__name__}, {rules}, goes on from a {way.__name__}", wrap, rules, way)(resume)

CLUSTER.scenario("fsdp, latent, goes on from a file", fsdp, "elements", through_a_file, "latent", "held")(resume)


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_controllers(name, check):
    check(name)
