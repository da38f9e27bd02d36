"""Training under DDP, FSDP2 and tensor parallelism: the weights of one process, and the same zeros."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import torchlasso as tl
from tests.support.cluster import Cluster
from torchlasso.distributed.sharding import whole

CLUSTER = Cluster()
STEPS = 10
LONGER = 20  # until units and singular values are zero
OPTIMIZERS = {
    "ProxSGD": (tl.ProxSGD, {"lr": 0.05, "momentum": 0.9}),
    "ProxAdam": (tl.ProxAdam, {"lr": 0.05}),
    "ProxAdamW": (tl.ProxAdamW, {"lr": 0.05, "weight_decay": 0.1}),
    "ProxRAdam": (tl.proximal(torch.optim.RAdam), {"lr": 0.05}),
}
# Blocks that a sharding of the rows cuts, or one of the columns, or neither; λ such that some are zero and some not.
PENALTIES = {
    "elements": (tl.L1(), 0.04),
    "rows": (tl.L1(over=tl.Rows()), 0.04),
    "input channels": (tl.L1(over=tl.InputChannels()), 0.04),
    "chunks of MCP": (tl.MCP(over=tl.Chunks(n=4)), 0.08),
    "sparse groups": (tl.SparseGroup(over=tl.Columns()), 0.04),
    "heads": ([tl.Rule("0.weight", tl.L1(over=tl.Heads(n=3, dim=1))), tl.Rule("*", tl.L1())], 0.03),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)  # over two processes 7 rows are 4 and 3, and 1 is 1 and none
    layers = nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)
    return nn.Sequential(*layers).double()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step % 3)
    x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    return x, torch.tanh(x[:, :1] - x[:, 1:2])


def train(forward, optimizer, rows=slice(None), dtype=torch.float64, steps: int = STEPS) -> None:
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x, y = (t[rows].to(dtype) for t in batch(step))
        optimizer.zero_grad()
        (forward(x) - y).square().mean().backward()
        optimizer.step()
        scheduler.step()


def optimizer_of(model, name: str, penalty: str, **options):
    cls, defaults = OPTIMIZERS[name]
    rules, lam = PENALTIES[penalty]
    return cls(tl.param_groups(model, rules, lam=lam), **{**defaults, **options})


def expect_the_same(model: nn.Module, plain: nn.Module, tolerance: float = 1e-6) -> None:
    zeros = 0
    for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
        p, q = whole(p.detach()), q.detach()
        torch.testing.assert_close(p, q, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(p == 0, q == 0), name
        zeros += int((q == 0).sum())
    assert zeros > 0  # else there is nothing to be the same
    assert any(p.any() for p in plain.parameters() if p.dim() > 1)


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp(model: nn.Module) -> nn.Module:
    fully_shard(model[0])
    return fully_shard(model)


def tensor_parallel(model: nn.Module) -> nn.Module:
    # 7 rows and 7 columns are cut unevenly; the last layer stays whole
    mesh = init_device_mesh("cpu", (2,))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()})


def compare(wrap, optimizer: str, penalty: str) -> None:
    plain, model = network(), network()
    train(plain, optimizer_of(plain, optimizer, penalty))
    forward = wrap(model)
    rank = dist.get_rank()
    rows = slice(None) if wrap is tensor_parallel else slice(4 * rank, 4 * rank + 4)
    train(forward, optimizer_of(model, optimizer, penalty), rows)
    assert any(isinstance(p, DTensor) for p in model.parameters()) == (wrap is not ddp)
    expect_the_same(model, plain)


SHARDINGS = {"DDP": ddp, "FSDP": fsdp, "tensor parallel": tensor_parallel}
for kind, wrap in SHARDINGS.items():
    for optimizer in OPTIMIZERS if wrap is fsdp else ("ProxSGD", "ProxAdam"):
        CLUSTER.scenario(f"{kind}, {optimizer}, elements", wrap, optimizer, "elements")(compare)
for penalty in [name for name in PENALTIES if name != "elements"]:
    for kind in ("FSDP", "tensor parallel"):
        CLUSTER.scenario(f"{kind}, ProxAdam, {penalty}", SHARDINGS[kind], "ProxAdam", penalty)(compare)


@CLUSTER.scenario("a model that shrinks under DDP")
def shrinking() -> None:
    x = batch(0)[0][:2]
    plain, model = network(), network()
    optimizers = [
        tl.ProxAdam(tl.param_groups(m, tl.L1(over=tl.Units(m, x)), lam=0.03), lr=0.05) for m in (plain, model)
    ]
    rank = dist.get_rank()
    rows = slice(4 * rank, 4 * rank + 4)
    train(plain, optimizers[0], steps=LONGER)
    train(ddp(model), optimizers[1], rows, steps=LONGER)  # the wrapper is gone afterwards
    reports = [tl.shrink_(m, o, x) for m, o in zip((plain, model), optimizers, strict=True)]
    assert reports[0] == reports[1]
    assert reports[1].removed > 0
    train(plain, optimizers[0])
    train(ddp(model), optimizers[1], rows)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@CLUSTER.scenario("singular values")
def singular_values() -> None:
    for wrap in (fsdp, tensor_parallel):
        plain, model = network(), network()
        rules = [tl.Rule("2.weight", tl.L1(over=tl.SingularValues())), tl.Rule("*", tl.L1())]
        for each in (plain, model):
            forward = wrap(model) if each is model else plain
            train(forward, tl.ProxSGD(tl.param_groups(each, rules, lam=0.15), lr=0.2), steps=LONGER)
        expect_the_same(model, plain)
        assert 0 < tl.L1(over=tl.SingularValues()).support(model[2].weight).sum() < 5


@CLUSTER.scenario("FSDP in mixed precision")
def mixed_precision() -> None:
    for penalty in ("elements", "input channels"):
        plain, model = network().float(), network().float()

        def halved(x, plain=plain):
            weights = {name: p.bfloat16() for name, p in plain.named_parameters()}
            return torch.func.functional_call(plain, weights, (x,))

        # the same examples on both processes, so that the mean gradient equals each gradient to the last bit
        train(halved, optimizer_of(plain, "ProxAdam", penalty), dtype=torch.bfloat16)
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        fully_shard(model[0], mp_policy=policy)
        forward = fully_shard(model, mp_policy=policy)
        train(forward, optimizer_of(model, "ProxAdam", penalty), dtype=torch.bfloat16)
        assert all(p.dtype == torch.float32 for p in model.parameters())
        expect_the_same(model, plain)


@CLUSTER.scenario("the plain loss term")
def loss_term() -> None:
    for wrap in (fsdp, tensor_parallel):
        plain, model = network(), network()
        for each in (plain, model):
            forward = wrap(model) if each is model else plain
            groups = tl.param_groups(each, tl.L1(over=tl.Columns()), lam=0.1)
            optimizer = torch.optim.SGD(groups, lr=0.1)
            for step in range(3):
                x, y = batch(step)
                optimizer.zero_grad()
                ((forward(x) - y).square().mean() + tl.penalty(groups)).backward()
                optimizer.step()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(whole(p.detach()), q.detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_training(name, check):
    check(name)
