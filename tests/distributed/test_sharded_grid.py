"""Four processes as a grid: FSDP2 over tensor parallelism, which cuts one dimension twice, and over replicas."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torchlasso as tl
from tests.support.cluster import Cluster
from torchlasso.distributed.sharding import whole

CLUSTER = Cluster(processes=4)
PENALTIES = {"rows": tl.L1(over=tl.Rows()), "columns": tl.MCP(over=tl.Columns()), "elements": tl.L1()}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def train(forward: nn.Module, groups: list, rows: slice) -> None:
    optimizer = tl.ProxAdam(groups, lr=0.05)
    for step in range(8):
        generator = torch.Generator().manual_seed(step % 3)
        x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (forward(x[rows]) - torch.tanh(x[rows, :1] - x[rows, 1:2])).square().mean().backward()
        optimizer.step()


def over_tensor_parallel(model: nn.Module) -> slice:
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    plan = {"0": ColwiseParallel(use_local_output=False), "2": RowwiseParallel()}
    parallelize_module(model, grid["tensor"], plan)
    for part in (model[0], model[2], model):
        fully_shard(part, mesh=grid["data"])
    assert model[2].weight.placements == (Shard(0), Shard(1))
    assert model[0].weight.placements != (Shard(0), Shard(0))  # torch cuts the rows in another order, with strides
    first = 4 * (dist.get_rank() // 2)
    return slice(first, first + 4)


def over_replicas(model: nn.Module) -> slice:
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicas", "data"))
    fully_shard(model, mesh=grid)
    assert model[0].weight.placements == (Replicate(), Shard(0))
    return slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)


def compare(wrap, penalty) -> None:
    plain, model = network(), network()
    rows = wrap(model)
    groups, expected = (tl.param_groups(each, penalty, lam=0.05) for each in (model, plain))
    train(plain, expected, slice(None))
    train(model, groups, rows)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        p, q = whole(p.detach()), whole(q.detach())
        torch.testing.assert_close(p, q, rtol=0, atol=1e-9)
        assert torch.equal(p == 0, q == 0)
    report = tl.report(plain, expected)
    assert report.zeros > 0
    assert tl.report(model, groups) == report
    assert tl.penalty(groups).item() == pytest.approx(tl.penalty(expected).item(), rel=1e-9)
    assert tl.stationarity(groups).max == pytest.approx(tl.stationarity(expected).max, rel=1e-6)


for name, penalty in PENALTIES.items():
    for wrap in (over_tensor_parallel, over_replicas):
        CLUSTER.scenario(f"FSDP {wrap.__name__.replace('_', ' ')}, {name}", wrap, penalty)(compare)


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_grid(name, check):
    check(name)
