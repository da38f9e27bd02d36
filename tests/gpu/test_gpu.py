"""Behaviour that only a GPU shows; skipped if there is none.

python -m pytest tests/gpu
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.cli.main import main
from torchlasso.inference.choosing import Examples
from torchlasso.inference.executions import executions
from torchlasso.inference.layers import find_layers
from torchlasso.inference.semistructured import SemiStructuredLinear

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

OPTIMIZERS = {
    "sgd": (tl.ProxSGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (tl.ProxAdam, {"lr": 0.02}),
    "adamw": (tl.ProxAdamW, {"lr": 0.02, "weight_decay": 0.1}),
}
PENALTIES = {
    "l1": (tl.L1(), 0.02),
    "mcp": (tl.MCP(gamma=3.0), 0.02),
    "rows": (tl.L1(over=tl.Rows()), 0.05),
    "sparse-group": (tl.SparseGroup(over=tl.Rows()), 0.05),
    "2:4": (tl.L1(over=tl.NM(2, 4)), 0.05),
}


def network(width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), nn.Tanh(), nn.Linear(width, 8)).double()


def batch(step: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(64, n, generator=generator, dtype=torch.float64) for n in (16, 8))
    return x.to(device), y.to(device)


def train(model: nn.Module, optimizer: tl.Proximal, steps: int = 40) -> nn.Module:
    device = str(next(model.parameters()).device)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        x, y = batch(step % 4, device)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return model


def assert_alike(ours: nn.Module, theirs: nn.Module) -> None:
    zeros = 0
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.cpu(), q.cpu(), atol=1e-7, rtol=1e-6)
        assert torch.equal(p.cpu() == 0, q.cpu() == 0)
        zeros += int((p == 0).sum())
    assert zeros


@pytest.mark.parametrize("fused", [None, True], ids=["plain", "fused"])
@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_agrees_with_a_cpu(name: str, penalty: str, fused: bool | None) -> None:
    cls, options = OPTIMIZERS[name]
    shape, lam = PENALTIES[penalty]
    there, here = network().cuda(), network()
    train(there, cls(tl.param_groups(there, shape, lam=lam), fused=fused, **options))
    train(here, cls(tl.param_groups(here, shape, lam=lam), fused=False, **options))
    assert_alike(there, here)


def test_the_host_waits_for_nothing() -> None:
    model = network().cuda()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=0.02), lr=0.02, fused=True)
    train(model, optimizer, 3)  # compiles
    x, y = batch(0, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_captured_step_agrees_with_the_reference() -> None:
    captured, plain = network().cuda(), network().cuda()
    x, y = batch(0, "cuda")
    ours = tl.ProxAdam(tl.param_groups(captured, tl.L1(), lam=0.02), lr=0.02, capturable=True)
    theirs = tl.ProxAdam(tl.param_groups(plain, tl.L1(), lam=0.02), lr=0.02, fused=False)

    def step(model: nn.Module, optimizer: tl.Proximal) -> None:
        optimizer.zero_grad(set_to_none=False)
        (model(x) - y).square().mean().backward()
        optimizer.step()

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(captured, ours)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(captured, ours)
    for _ in range(30):
        graph.replay()
    for _ in range(33):
        step(plain, theirs)
    assert_alike(captured, plain)


def test_lambda_is_steered_and_states_move_between_devices() -> None:
    model = network().cuda()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(), lam=1e-3), lr=0.02)
    control = tl.TargetSparsity(optimizer, 0.8, steps=400)
    weighted = tl.Reweighted(optimizer, 0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for step in range(400):
        x, y = batch(step % 4, "cuda")
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        scheduler.step()
        control.step()
        weighted.step()
    assert tl.report(model).sparsity == pytest.approx(0.8, abs=0.01)
    here = network()
    other = tl.ProxAdam(tl.param_groups(here, tl.L1(), lam=1e-3), lr=0.02)
    copies = tl.TargetSparsity(other, 0.8, steps=400), tl.Reweighted(other, 0.1)
    other.load_state_dict(optimizer.state_dict())
    for ours, theirs in zip(copies, (control, weighted), strict=True):
        ours.load_state_dict(theirs.state_dict())
    x, y = batch(0, "cpu")
    (here(x) - y).square().mean().backward()
    other.step()
    assert all(p.device.type == "cpu" and bool(p.isfinite().all()) for p in here.parameters())


def conv_net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight[::2], model[0].bias[::2] = 0.0, 0.0
        model[3].weight[1::4] = 0.0
    return model.cuda(), torch.randn(4, 3, 12, 12, device="cuda")


def test_compaction_keeps_the_outputs() -> None:
    model, x = conv_net()
    small = tl.compact(model, x)
    assert next(small.parameters()).is_cuda
    assert small[0].out_channels == 8
    assert small[3].out_channels == 24
    torch.testing.assert_close(small.eval()(x), model.eval()(x), atol=1e-4, rtol=1e-4)


def test_dead_units_are_removed_during_training() -> None:
    model, x = conv_net()
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=tl.Units(model, x)), lam=1e-3), lr=1e-3)
    y = torch.randint(0, 10, (4,), device="cuda")
    whole, sizes = copy.deepcopy((model, optimizer)), []
    for _ in range(5):
        for net, steps in (whole, (model, optimizer)):
            steps.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            steps.step()
        tl.shrink_(model, optimizer, x)
        sizes.append(model[0].out_channels)
    assert sizes[0] < 16
    torch.testing.assert_close(model.eval()(x), whole[0].eval()(x), atol=1e-4, rtol=1e-4)


def test_files_are_loaded_onto_the_device(tmp_path: Path) -> None:
    model, x = conv_net()
    tl.save(model, tmp_path / "small.safetensors")
    other, _ = conv_net()
    for p in other.parameters():
        nn.init.normal_(p)
    tl.load(tmp_path / "small.safetensors", into=other)
    assert next(other.parameters()).is_cuda
    assert torch.equal(other.eval()(x), model.eval()(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_two_of_four_agrees_with_a_cpu(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(256, 512).to("cuda", dtype).requires_grad_(False)
    layer.weight.copy_(tl.L1(over=tl.NM(2, 4)).prox(layer.weight, 1e6, 1.0))
    x = torch.randn(64, 256, device="cuda", dtype=dtype)
    (found,) = find_layers(layer)
    found.visits = [x]
    sparse = executions()["2:4"](found)
    assert isinstance(sparse, SemiStructuredLinear)
    assert Examples.of(found).fit(sparse)
    assert sparse(x[:5]).shape == (5, 512)  # as many rows as one likes


def test_models_that_are_accelerated_give_the_same() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).cuda()
    model[0].weight.data[::3] = 0.0
    x = torch.randn(8, 64, device="cuda")
    fast, report = tl.accelerate(model, x, return_report=True)
    torch.testing.assert_close(fast(x), model(x), atol=1e-4, rtol=1e-4)
    assert len(report.layers) == 2


def call(*command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0


def test_the_commands(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    train = ["train", "--data", "digits", "--model", "lenet-5", "--over", "units", "--flops", "0.5", "--shrink"]
    call(*train, "--epochs", "3", "--device", "cuda", "--out", out)
    call("compact", out)
    call("bench", out)
    record = json.loads((Path(out) / "bench.json").read_text())
    assert torch.cuda.get_device_name() in record["device"]
    assert {"dense", "compact"} <= {each["name"] for each in record["variants"]}
    call("predict", out, "--data", "digits")
