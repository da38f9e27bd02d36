"""Reports and certificates of sharded models: the numbers of the whole model, on every process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import torchlasso as tl
from tests.support.cluster import Cluster

CLUSTER = Cluster()
RULES = [
    tl.Rule("3.weight", tl.L1(over=tl.Rows())),
    tl.Rule("5.weight", tl.SparseGroup(over=tl.Columns())),
    tl.Rule("*", tl.L1(), everything=True),
]
X = torch.randn(8, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv1d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5), nn.Linear(5, 1)
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        model[0].weight[2] = 0.0
        model[3].weight[:, 4] = 0.0
        model[3].weight[6] = 0.0
        model[5].weight[2:, :3] = 0.0
        model[6].weight[0, 1:] = 0.0
    return model


def fsdp(model: nn.Module) -> nn.Module:
    fully_shard([model[0], model[3]])
    fully_shard(model[5])
    return fully_shard(model)


def tensor_parallel(model: nn.Module) -> nn.Module:
    mesh = init_device_mesh("cpu", (2,))
    return parallelize_module(model, mesh, {"3": ColwiseParallel(use_local_output=False), "5": RowwiseParallel()})


def both(wrap) -> tuple[nn.Module, nn.Module]:
    model = wrap(network())
    assert any(isinstance(p, DTensor) for p in model.parameters())
    return network(), model


def groups_of(model: nn.Module) -> list[dict]:
    return tl.param_groups(model, RULES, lam=0.01)


def backward(model: nn.Module) -> None:
    model(X).square().mean().backward()


def report(wrap) -> None:
    plain, model = both(wrap)
    expected = tl.report(plain)
    assert 0 < expected.zeros < expected.penalised
    assert expected.layers[1].live_units == 6
    assert expected.layers[1].live_inputs == 8
    assert tl.report(model) == expected
    chosen = groups_of(model)
    with torch.no_grad():
        model(X)  # afterwards FSDP's root has other parameter objects than the groups
    assert tl.report(model, chosen) == tl.report(plain, groups_of(plain))


def certificates(wrap) -> None:
    plain, model = both(wrap)
    backward(plain)
    backward(model)
    one, other = (tl.stationarity(groups_of(each)) for each in (plain, model))
    assert (other.max, other.mean) == pytest.approx((one.max, one.mean), rel=1e-9)
    one, other = (tl.lambda_max(groups_of(each)) for each in (plain, model))
    assert other == pytest.approx(one, rel=1e-9)


def value(wrap) -> None:
    plain, model = both(wrap)
    one, other = (tl.penalty(groups_of(each)) for each in (plain, model))
    assert not isinstance(other, DTensor)
    torch.testing.assert_close(other, one, rtol=1e-12, atol=0)


for kind, wrap in {"FSDP": fsdp, "tensor parallel": tensor_parallel}.items():
    for what in (report, certificates, value):
        CLUSTER.scenario(f"{what.__name__}, {kind}", wrap)(what)


@CLUSTER.scenario("a rank without rows")
def without_rows() -> None:
    layer = nn.Linear(4, 1, bias=False)
    nn.init.constant_(layer.weight, 2.0)
    layer.weight.data[0, 0] = 0.0
    fully_shard(layer)
    assert layer.weight.to_local().numel() == (4 if dist.get_rank() == 0 else 0)
    shown = tl.report(layer).layers[0]
    assert (shown.kind, shown.shape, shown.weights, shown.zeros, shown.live_inputs) == ("Linear", (1, 4), 4, 1, 3)
    groups = tl.param_groups(layer, tl.L1(over=tl.Rows()), lam=1.0)
    assert tl.penalty(groups).item() == pytest.approx(2 * 12**0.5)  # √4 · ‖(0, 2, 2, 2)‖


@pytest.mark.parametrize("name", CLUSTER.scenarios)
def test_reports(name, check):
    check(name)
