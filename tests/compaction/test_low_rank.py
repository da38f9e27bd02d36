"""Layers of low rank become two layers, with the same outputs, in memory, in files and in ONNX."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from torchlasso.compaction.low_rank import LowRank, factored

INPUTS = {1: (2, 6, 20), 2: (2, 6, 9, 8), 3: (2, 6, 5, 6, 7)}


def lowered_(layer: Any, rank: int) -> Any:
    """Give a layer this rank."""
    u, s, vh = torch.linalg.svd(layer.weight.detach().double().flatten(1), full_matrices=False)
    with torch.no_grad():
        layer.weight.copy_(((u[:, :rank] * s[:rank]) @ vh[:rank]).view_as(layer.weight))
    return layer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        lowered_(nn.Conv2d(16, 24, 3, stride=2, padding=2, dilation=2), 4),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        lowered_(nn.Linear(24, 32), 3),
        nn.ReLU(),
        nn.Linear(32, 5),
    ).eval()


X = torch.randn(4, 3, 10, 10, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "bias": False}, {"padding": 2, "dilation": 2}, {"padding": 1, "padding_mode": "circular"}],
)
def test_a_convolution_of_any_form(dims: int, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = lowered_((nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](6, 8, 3, **options), 2)
    two = factored(layer)
    assert two is not None
    x = torch.randn(INPUTS[dims])
    assert torch.allclose(two(x), layer(x), atol=1e-6)
    assert sum(p.numel() for p in two.parameters()) < sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_the_prox_of_singular_values_leaves(dtype: torch.dtype) -> None:
    """ProxSGD with a nuclear norm ends at a low rank, and the layer with fewer operations."""
    torch.manual_seed(0)
    x = torch.randn(200, 12, dtype=dtype)
    y = x @ torch.randn(12, 2, dtype=dtype) @ torch.randn(2, 16, dtype=dtype)
    model = nn.Sequential(nn.Linear(12, 16, bias=False, dtype=dtype))
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(over=tl.SingularValues()), lam=0.5), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    small, report = tl.compact(model, x[:4], low_rank=True, return_report=True)
    [layer] = report.factored
    assert (layer.name, layer.rank, layer.before, layer.after) == ("0", 2, 192, 56)
    assert report.after.flops == report.before.flops * 56 // 192
    assert torch.allclose(small(x), model(x), atol=1e-5)


def test_a_network_keeps_its_outputs_and_says_what_became_two() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    small, report = tl.compact(model, X, low_rank=True, return_report=True)
    assert [(each.name, each.rank) for each in report.factored] == [("2", 4), ("7", 3)]
    assert torch.allclose(small(X), model(X), atol=1e-6)
    assert report.after.flops < 0.6 * report.before.flops
    assert "2 became two layers, of rank 4: 672 of 3,456 weights are left" in str(report)
    assert report.verdict.startswith("2 layers became two: ")
    assert report.to_dict()["factored"][1] == {"name": "7", "rank": 3, "before": 768, "after": 168}
    assert all(torch.equal(w, before[name]) for name, w in model.state_dict().items())
    assert not any(isinstance(layer, LowRank) for layer in tl.compact(model, X).modules())  # only on request
    small.train()(X).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_units_go_first() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[:6], model[0].bias[:6] = 0, 0
        model[9].weight[:, 20:] = 0
    small, report = tl.compact(model, X, low_rank=True, return_report=True)
    assert report.removed == 18
    assert [tuple(small[i][j].weight.shape[:2]) for i in (2, 7) for j in (0, 1)] == [(4, 10), (24, 4), (3, 24), (20, 3)]
    assert torch.allclose(small(X), model(X), atol=1e-6)
    assert "18 of" in report.verdict
    assert "units were removed and 2 layers became two" in report.verdict


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_file_loads_into_a_model_of_the_full_size(tmp_path: Path, cut: bool, device: str) -> None:
    model = network()
    if cut:
        with torch.no_grad():
            model[0].weight[:6], model[0].bias[:6] = 0, 0
    small = tl.compact(model, X, low_rank=True)
    file = tmp_path / "small.safetensors"
    tl.save(small, file)
    fresh = network().to(device)
    tl.load(file, into=fresh)
    assert torch.equal(fresh(X), small(X))
    tl.load(file, into=fresh)  # it has these layers already
    tl.save(fresh, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()


def test_a_model_that_does_not_fit_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    tl.save(tl.compact(network(), X, low_rank=True), file)
    for change, message in (
        (lambda model: model.__delitem__(7), "it has no layer '7', which became two|'7' became two layers, and is a"),
        (lambda model: model.__setitem__(7, nn.ReLU()), "'7' became two layers, and is a ReLU in the model"),
        (lambda model: model.__setitem__(7, nn.Linear(24, 8)), "'7' became two layers that are larger"),
        (lambda model: model.__setitem__(9, nn.Linear(32, 6)), r"'9.weight' is float32 of shape \(5, 32\)"),
    ):
        model = network()
        change(model)
        layers, state = [*model], copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=message) as error:
            tl.load(file, into=model)
        assert str(file) in str(error.value)
        assert [*model] == layers
        assert all(torch.equal(w, state[name]) for name, w in model.state_dict().items())


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    tl.save(tl.compact(network(), X, low_rank=True), file)
    content = file.read_bytes()
    known = json.dumps(["2", "7"], separators=(",", ":")).replace('"', '\\"').encode()
    assert known in content
    for other in (b'[\\"2\\",\\"8\\"]', b'[\\"2\\",777]'.ljust(len(known))):
        file.write_bytes(content.replace(known, other))
        with pytest.raises(ValueError, match=r"damaged|cannot be read"):
            tl.load(file, into=network())


class ReadsWeights(nn.Module):
    """Uses the weight of a layer itself, so that it cannot be another module."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.other = (lowered_(nn.Linear(12, 12), 2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.other(torch.relu(nn.functional.linear(x, self.read.weight)))


class Tied(nn.Module):
    """Two layers with one weight, and one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.twice = (lowered_(nn.Linear(12, 12), 2) for _ in range(3))
        self.second.weight = self.first.weight
        self.again = self.twice

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.twice(torch.relu(self.second(torch.relu(self.first(x)))))))


def with_a_hook() -> nn.Module:
    model = nn.Sequential(lowered_(nn.Linear(12, 12), 2))
    model[0].register_forward_hook(lambda *_: None)
    return model


def with_weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(lowered_(nn.Linear(12, 12), 2)))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (ReadsWeights, ["other"]),
        (Tied, []),
        (with_a_hook, []),
        (with_weight_norm, []),
        (lambda: nn.Sequential(nn.Linear(12, 12)), []),
        (lambda: nn.Sequential(lowered_(nn.Linear(12, 12), 6)), []),  # as many weights
        (lambda: nn.Sequential(lowered_(nn.Linear(12, 12), 5)), ["0"]),
        (lambda: nn.Sequential(lowered_(nn.Linear(12, 12), 2).bfloat16().float(), nn.Linear(12, 2)), []),  # rounded
        (lambda: nn.Sequential(nn.Unflatten(1, (12, 1)), nn.Conv1d(12, 12, 1, groups=3), nn.Flatten()), []),
        (lambda: lowered_(nn.Linear(12, 12), 2), []),  # the model itself
    ],
)
def test_which_layers_become_two(build: Any, expected: list[str]) -> None:
    torch.manual_seed(0)
    model, x = build(), torch.randn(3, 12)
    small, report = tl.compact(model, x, low_rank=True, return_report=True)
    assert [layer.name for layer in report.factored] == expected
    assert report.whole == (("read",) if build is ReadsWeights else ())
    assert ("read has a low rank and stays: " in str(report)) == (build is ReadsWeights)
    assert torch.allclose(small(x), model(x), atol=1e-6)


def test_a_layer_whose_fast_path_reads_weights_says_that_they_stay() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    lowered_(layer.linear1, 2)
    x = torch.randn(2, 5, 16)
    small, report = tl.compact(nn.Sequential(layer), x, low_rank=True, return_report=True)
    assert report.whole == ("0.linear1",)
    assert torch.allclose(small(x), layer(x), atol=1e-6)


@pytest.mark.usefixtures("one_registry")
def test_in_onnx(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from torchlasso.export import to_onnx

    small = tl.compact(network(), X, low_rank=True)
    to_onnx(small, X, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    [found] = session.run(None, {session.get_inputs()[0].name: X.numpy()})
    assert torch.allclose(torch.from_numpy(found), small(X), atol=1e-5)
