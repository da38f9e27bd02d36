"""Accelerated models: the same outputs, and an unchanged input model."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils._pytree import tree_map

import torchlasso as tl
from tests.support.accelerated import Branching, assert_same, dense, mlp
from tests.support.architectures import ARCHITECTURES
from torchlasso import models
from torchlasso.inference.convolution import SparseConvolution
from torchlasso.inference.linear import SparseLinear

pytestmark = pytest.mark.slow

Prefer = Callable[..., None]
Sparsified = Callable[..., nn.Module]

# Why layers stay as they are, where it is not that their channels are in groups.
STAY = {"vit": "'SparseConvolution' object has no attribute 'weight'"}  # whose precision it wants to know


def in_double(inputs: Any) -> Any:
    return tree_map(lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, inputs)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_architectures(name: str, prefer: Prefer, sparsified: Sparsified) -> None:
    torch.manual_seed(0)
    prefer("csr", "channels")
    model, inputs = ARCHITECTURES[name]()
    model, inputs = sparsified(model.double()), in_double(inputs)
    before = copy.deepcopy(model.state_dict())
    fast, report = tl.accelerate(model, inputs, compact_first=False, return_report=True)
    assert model.training
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
    assert all(STAY.get(name, "its channels are in groups") in why for why in dense(report).values())
    assert len(report.layers) > len(dense(report))
    assert_same(model, fast, inputs)
    longer = tree_map(lambda x: torch.cat([x, x[:1]]) if isinstance(x, Tensor) else x, inputs)
    assert_same(model, fast, longer)


def test_compaction_comes_first(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    torch.manual_seed(0)
    model, x = models.build("lenet-5", (1, 12, 12), 10), torch.randn(3, 1, 12, 12)
    sparsified(model, 0.95)
    fast, report = tl.accelerate(model, x, return_report=True)
    assert report.compaction.startswith("Compaction: ")
    assert "units were removed" in report.compaction
    assert {layer.execution for layer in report.layers} == {"csr"}
    assert report.layers[-1].shape[1] < 500
    assert_same(model, fast, x)
    assert_same(model, fast, torch.randn(7, 1, 12, 12))


def test_a_model_that_cannot_be_exported_is_not_compacted(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    model, x = sparsified(Branching()), torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, return_report=True)
    assert "Not compacted: Branching cannot be exported" in report.compaction
    assert not dense(report)
    assert_same(model, fast, x)
    assert_same(model, fast, -x)


def test_a_model_that_is_a_layer(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    model, x = sparsified(nn.Linear(20, 20)), torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert isinstance(fast, SparseLinear)
    assert report.layers[0].name == ""
    assert_same(model, fast, x)
    again, report = tl.accelerate(fast, x, return_report=True)
    assert not report.layers
    assert_same(model, again, x)


def test_a_module_in_several_places_is_one(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    shared = nn.Linear(20, 20)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Sequential(nn.ReLU(), shared))
    sparsified(model)
    x = torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert [layer.name for layer in report.layers] == ["0"]
    assert fast[0] is fast[2] is fast[3][1]
    assert isinstance(fast[0], SparseLinear)
    assert model[0] is model[2] is shared
    assert_same(model, fast, x)


def test_a_weight_of_several_modules(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    model = mlp()
    model[2].weight = nn.Parameter(torch.randn(30, 30))
    model.insert(3, nn.Linear(30, 30))
    model[3].weight = model[2].weight
    sparsified(model)
    fast = tl.accelerate(model, torch.randn(3, 20), compact_first=False)
    assert_same(model, fast, torch.randn(4, 20))


def test_code_that_reads_weights_still_reads_them(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))
    sparsified(model)
    x = torch.randn(3, 7, 16)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    stays = dense(report)
    assert len(stays) == 6
    for name, why in stays.items():
        assert ("the model does not call it" if "out_proj" in name else "the model needs it unchanged") in why
    assert_same(model, fast, x)
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
        assert all("out_proj" in name for name in dense(report))
        assert_same(model, fast, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_other_modules_than_plain_layers_stay(prefer: Prefer, sparsified: Sparsified) -> None:
    class Twice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    class Named(nn.Linear):
        pass

    prefer("csr")
    model = nn.Sequential(*(cls(20, 20) for cls in (Twice, Named, nn.Linear, nn.Linear, nn.Linear, nn.Linear)))
    sparsified(model)
    prune.l1_unstructured(model[2], "weight", 0.9)
    model[3] = parametrizations.weight_norm(nn.Linear(20, 20))
    model[4].register_forward_hook(lambda module, args, output: 3 * output)
    model[5].forward = model[5].forward
    x = torch.randn(3, 20)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    assert dense(report) == {
        "2": "its weight is computed and not a parameter",
        "3": "its weight is computed and not a parameter",
        "4": "it has hooks or a custom forward pass",
        "5": "it has hooks or a custom forward pass",
    }
    assert isinstance(fast[1], SparseLinear)
    assert isinstance(fast[0], Twice)
    assert_same(model, fast, x)


def test_layers_that_are_called_otherwise(prefer: Prefer, sparsified: Sparsified) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(20, 20) for _ in range(4))
            self.full = nn.Linear(20, 20)

        def forward(self, x: Tensor, *, scale: float) -> dict[str, Any]:
            x = self.a(input=x)
            for part in (x[:1], x[:2], x, x):
                x = x + self.b(part).mean(dim=0)
            x = nn.functional.linear(x, self.c.weight)
            return {"y": scale * self.full(x), "count": len(x)}

    prefer("csr")
    model = Model()
    full = model.full.weight.detach().clone()
    sparsified(model)
    model.full.weight = nn.Parameter(full)
    inputs = {"x": torch.randn(5, 20), "scale": 2.0}
    fast, report = tl.accelerate(model, inputs, compact_first=False, return_report=True)
    calls = "the model does not call it"
    assert dense(report) == {"c": calls, "d": calls, "full": "no weight is zero"}
    assert_same(model, fast, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_precisions(dtype: torch.dtype, prefer: Prefer, sparsified: Sparsified) -> None:
    """MKL has no sparse product in bfloat16."""
    prefer("csr")
    model, x = sparsified(mlp()).to(dtype), torch.randn(3, 20, dtype=dtype)
    fast, report = tl.accelerate(model, x, compact_first=False, return_report=True)
    if dtype == torch.bfloat16:
        assert all("not implemented" in why for why in dense(report).values())
        assert len(dense(report)) == 3
    else:
        assert not dense(report)
    assert fast(x).dtype == dtype
    assert_same(model, fast, x)


def test_the_result_of_accelerate(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr", "channels")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(72, 5)]
    model = sparsified(nn.Sequential(*layers), 0.7).train()
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    fast = tl.accelerate(model, x, compact_first=False)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model)
    assert not any(p.requires_grad for p in fast.parameters())
    assert not fast.training
    assert isinstance(fast[0], SparseConvolution)
    with pytest.raises(ValueError, match="for inference"):
        fast.train()
    other = copy.deepcopy(fast)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(fast.state_dict())
    assert_same(model, other, x)
    file = io.BytesIO()
    torch.save(fast, file)
    file.seek(0)
    assert_same(model, torch.load(file, weights_only=False), x)
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), model.eval()(x))
    torch.testing.assert_close(fast.double()(x.double()), model.double()(x.double()))


def test_inputs_that_a_model_writes_into_stay(prefer: Prefer, sparsified: Sparsified) -> None:
    prefer("csr")
    model, x = sparsified(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(20, 20))), torch.randn(3, 20)
    before = x.clone()
    tl.accelerate(model, x)
    assert torch.equal(x, before)
