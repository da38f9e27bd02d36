"""The fused step under DDP, FSDP2 and tensor parallelism: the weights of one process without it, and the same zeros."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import torchlasso as tl
from tests.support.cluster import Cluster
from tests.support.pairwise import cover
from torchlasso.distributed.sharding import whole
from torchlasso.optim.fused.cpu import Launch

CLUSTER = Cluster()
STEPS = 20
OPTIMIZERS = {
    "ProxSGD": (tl.ProxSGD, {"lr": 0.05, "momentum": 0.9}),
    "ProxAdam": (tl.ProxAdam, {"lr": 0.05}),
    "ProxAdamW": (tl.ProxAdamW, {"lr": 0.05, "weight_decay": 0.1}),
}
PENALTIES = {
    "elements": (tl.L1(), 0.04),
    "rows": (tl.L1(over=tl.Rows()), 0.1),
    "columns": (tl.L1(over=tl.Columns()), 0.04),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)  # over two processes 7 rows are 4 and 3, and 1 is 1 and none
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def ddp(model: nn.Module) -> nn.Module:
    return DistributedDataParallel(model)


def fsdp(model: nn.Module) -> nn.Module:
    fully_shard(model[0])
    return fully_shard(model)


def tensor_parallel(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    return parallelize_module(model, mesh, {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()})


def train(forward: nn.Module, optimizer: tl.Proximal, rows: slice = slice(None)) -> None:
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step % 3), dtype=torch.float64)
        optimizer.zero_grad()
        (forward(x[rows]) - torch.tanh(x[rows, :1] - x[rows, 1:2])).square().mean().backward()
        optimizer.step()
        scheduler.step()


def build(model: nn.Module, name: str, penalty: str, **options: bool) -> tl.Proximal:
    cls, defaults = OPTIMIZERS[name]
    rule, lam = PENALTIES[penalty]
    return cls(tl.param_groups(model, rule, lam=lam), **defaults, **options)


def compare(wrap, name: str, penalty: str) -> None:
    plain, model = network(), network()
    train(plain, build(plain, name, penalty, fused=False))
    forward = wrap(model)
    rank = dist.get_rank()
    launched, call = [], Launch.__call__
    Launch.__call__ = lambda launch: launched.append(launch) or call(launch)  # type: ignore[method-assign]
    try:
        rows = slice(None) if wrap is tensor_parallel else slice(4 * rank, 4 * rank + 4)
        train(forward, build(model, name, penalty, fused=True), rows)
    finally:
        Launch.__call__ = call  # type: ignore[method-assign]
    assert launched, "the fused step was taken"
    assert any(isinstance(p, DTensor) for p in model.parameters()) == (wrap is not ddp)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        p, q = whole(p.detach()), q.detach()
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9)
        assert torch.equal(p == 0, q == 0)
    assert any((q == 0).any() for q in plain.parameters())


# any two of the sharding, the optimizer and the penalty meet once
for wrap, name, penalty in cover([[ddp, fsdp, tensor_parallel], list(OPTIMIZERS), list(PENALTIES)], 2):
    CLUSTER.scenario(f"{wrap.__name__}, {name}, {penalty}", wrap, name, penalty)(compare)


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_steps(name, check):
    check(name)
