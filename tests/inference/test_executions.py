"""Each way to run a layer computes the same outputs as the layer, for all of its settings."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from torchlasso.inference import compiled, semistructured
from torchlasso.inference.compiled import library
from torchlasso.inference.convolution import SparseConvolution
from torchlasso.inference.executions import executions
from torchlasso.inference.layers import find_layers
from torchlasso.inference.linear import SparseLinear
from torchlasso.inference.matrix import SparseMatrix

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
MANY = settings(deadline=None, max_examples=80, derandomize=True)
KINDS = st.sampled_from(["weights", "rows", "columns", "blocks", "all"])


@torch.no_grad()
def zeroed(layer: nn.Module, kind: str, seed: int) -> nn.Module:
    """Set most of the weights of a layer to zero: single ones, all of outputs or inputs, blocks, or all of them."""
    w, generator = layer.weight, torch.Generator().manual_seed(seed)

    def there(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) > 0.7

    outputs, inputs, *kernel = w.shape
    masks = {
        "weights": there(*w.shape),
        "rows": there(outputs, 1, *[1] * len(kernel)),
        "columns": there(1, inputs, *[1] * len(kernel)),
        "blocks": there(-(-outputs // 4), -(-inputs // 4), *kernel).repeat_interleave(4, 0).repeat_interleave(4, 1),
        "all": torch.zeros_like(w),
    }
    w.mul_(masks[kind][:outputs, :inputs])
    return layer


def ways(layer: nn.Module, *visits: Tensor) -> dict[str, nn.Module]:
    """The modules that could take a layer's place, if it is given that."""
    (found,) = find_layers(layer)
    found.visits.extend(visits)
    made = {name: build(found) for name, build in executions().items() if name != "compiled" or library() is not None}
    return {name: module for name, module in made.items() if module is not None}


def assert_same(layer: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    found = ways(layer, x)
    with torch.no_grad():
        y = layer(x)
        for name, module in found.items():
            ours = module(x)
            tolerance = TOLERANCE[x.dtype]
            torch.testing.assert_close(ours, y, atol=tolerance, rtol=tolerance, msg=lambda text, n=name: f"{n}: {text}")
            assert ours.is_contiguous(), name
    return found


@MANY
@given(st.data())
def test_linear_layers(data: st.DataObject) -> None:
    draw = data.draw
    inputs, outputs = draw(st.sampled_from([1, 3, 8, 32])), draw(st.sampled_from([1, 5, 8, 32]))
    leading = draw(st.sampled_from([(), (0,), (1,), (2,), (3,), (70,), (2, 3), (1, 1, 1), (2, 0, 3), (5, 13, 2)]))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=draw(st.booleans()), dtype=dtype)
    zeroed(layer, draw(KINDS), draw(st.integers(0, 9)))
    x = torch.randn(*leading, inputs, dtype=dtype)
    if x.dim() > 1 and draw(st.booleans()):
        x = torch.randn(*leading[1:], inputs, leading[0], dtype=dtype).movedim(-1, 0)  # not contiguous
    assert_same(layer, x)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@MANY
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    draw = data.draw
    dims = draw(st.integers(1, 3))

    def numbers(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=dims, max_size=dims)))

    kernel, stride, dilation = numbers(1, 3), numbers(1, 3), numbers(1, 2)
    padding: Any = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = (1,) * dims if padding == "same" else stride
    padding = numbers(0, 2) if padding == "numbers" else padding
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    dtype = draw(st.sampled_from(list(TOLERANCE)))
    torch.manual_seed(0)
    cls = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    channels = draw(st.sampled_from([(1, 4), (5, 1), (8, 4)]))
    bias = draw(st.booleans())
    layer = cls(*channels, kernel, stride, padding, dilation, bias=bias, padding_mode=mode, dtype=dtype)
    zeroed(layer, draw(KINDS), draw(st.integers(0, 9)))
    sizes = [draw(st.integers((k - 1) * d + 1, 9)) for k, d in zip(kernel, dilation, strict=True)]
    batch = draw(st.sampled_from([(), (1,), (3,), (0,)])) if mode == "zeros" else (2,)
    x = torch.randn(*batch, channels[0], *[max(3, size) for size in sizes], dtype=dtype)
    if dims == 2 and len(batch) and draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer(x)
    assert_same(layer, x)


def test_which_ways_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    if library() is not None:
        layer = zeroed(nn.Linear(64, 64), "weights", 0)
        assert "compiled" not in ways(layer, torch.ones(15, 64), torch.ones(3, 5, 64))
        assert "compiled" in ways(layer, torch.ones(15, 64), torch.ones(4, 4, 64))
        assert "compiled" in ways(layer, torch.ones(2, 64))
    monkeypatch.setattr(f"{__name__}.library", lambda: None)
    assert list(ways(zeroed(nn.Linear(64, 64), "weights", 0))) == ["csr"]
    assert list(ways(zeroed(nn.Linear(64, 64), "rows", 0))) == ["channels", "csr"]
    assert list(ways(zeroed(nn.Linear(64, 64), "blocks", 0))) == ["csr", "blocks-4"]
    assert list(ways(zeroed(nn.Conv2d(64, 64, 3), "columns", 1))) == ["channels", "csr"]
    few = nn.Linear(64, 64)
    nn.init.zeros_(few.weight[:8, :8])
    assert list(ways(few)) == []


def test_block_sizes_depend_on_the_full_blocks() -> None:
    layer = nn.Linear(64, 64)
    mask = torch.zeros(64, 64)
    mask[16:32, 32:48] = 1
    with torch.no_grad():
        layer.weight.mul_(mask)
    found = assert_same(layer, torch.randn(5, 64))
    assert [name for name in found if name != "compiled"] == ["channels", "csr", "blocks-4", "blocks-8", "blocks-16"]
    assert found["blocks-16"].matrix.values.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("make", "shape"), [(lambda: nn.Linear(32, 16), (20, 32)), (lambda: nn.Conv2d(8, 8, 3, 2), (2, 8, 9, 9))]
)
@pytest.mark.parametrize("kind", ["weights", "rows", "blocks"])
def test_they_are_plain_modules(make: Any, shape: tuple[int, ...], kind: str) -> None:
    torch.manual_seed(0)
    layer, x = zeroed(make(), kind, 0), torch.randn(shape)
    for module in ways(layer, x).values():
        y = module(x)
        other = copy.deepcopy(module)
        assert torch.equal(other(x), y)
        for tensor in other.state_dict().values():
            tensor.zero_()
        assert torch.equal(module(x), y), "a copy shares no memory"
        other.load_state_dict(module.state_dict())
        assert torch.equal(other(x), y)
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        assert torch.equal(torch.load(file, weights_only=False)(x), y)
        with torch.inference_mode():
            assert torch.equal(module(x), y)
        wide = copy.deepcopy(module).double()
        torch.testing.assert_close(wide(x.double()), copy.deepcopy(layer).double()(x.double()))
        assert not any(tensor.requires_grad for tensor in module.state_dict().values())
        assert repr(module)


def test_gradients_of_inputs_pass_through() -> None:
    torch.manual_seed(0)
    for layer, shape in ((nn.Linear(32, 16), (20, 32)), (nn.Conv2d(8, 8, 3), (2, 8, 5, 5))):
        zeroed(layer.double(), "weights", 0)
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        (wanted,) = torch.autograd.grad(layer(x).square().sum(), x)
        for module in ways(layer, x).values():
            (grad,) = torch.autograd.grad(module(x).square().sum(), x)
            torch.testing.assert_close(grad, wanted)


def test_compiled_code_runs_where_it_can_and_torch_s_functions_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    if library() is None:
        pytest.skip("no compiler works here")
    calls = []

    def counted(*args: Any) -> None:
        calls.append(args)
        compiled.sum_products(*args)

    for module in ("linear", "convolution"):
        monkeypatch.setattr(f"torchlasso.inference.{module}.sum_products", counted)
    torch.manual_seed(0)
    for layer, shape in ((nn.Linear(32, 16), (20, 32)), (nn.Conv2d(8, 8, 3), (2, 8, 9, 9))):
        x = torch.randn(shape)
        module = ways(zeroed(layer, "weights", 0), x)["compiled"]
        calls.clear()
        y = module(x)
        assert len(calls) == 1
        torch.testing.assert_close(module(x.clone().requires_grad_()), y)
        with monkeypatch.context() as patch:
            patch.setattr(compiled, "library", lambda: None)
            torch.testing.assert_close(module(x), y)
        with pytest.raises(RuntimeError, match=r"Float.*Double"):
            module(x.double())
        assert len(calls) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("inputs", [1, 7, 16, 63, 64, 200, 2**16, 2**16 + 1])
def test_a_product_with_a_vector_is_right_for_rows_of_any_length(inputs: int, dtype: torch.dtype) -> None:
    if library() is None:
        pytest.skip("no compiler works here")
    torch.manual_seed(0)
    w = torch.randn(40, inputs, dtype=dtype)
    lengths = (torch.linspace(0, 1, 40) * inputs).long()  # from an empty row to a full one
    w[torch.rand(40, inputs).argsort(dim=1) >= lengths[:, None]] = 0
    bias, x = torch.randn(40, dtype=dtype), torch.randn(inputs, 2, dtype=dtype).t()  # a row is not contiguous
    for b in (bias, None):
        module = SparseLinear(w, b, compiled=True)
        assert (module.matrix.narrow_col is None) == (inputs > 2**16)
        exact = nn.functional.linear(x.double(), w.double(), None if b is None else b.double())
        lost = 100 * torch.finfo(dtype).eps * inputs**0.5  # in a sum of so many products, of about this size
        torch.testing.assert_close(module(x).double(), exact, rtol=0, atol=lost)


def test_columns_of_16_bits_follow_those_that_are_loaded() -> None:
    if library() is None:
        pytest.skip("no compiler works here")
    torch.manual_seed(0)
    one, other = torch.eye(20), torch.eye(20).flip(0)
    module, x = SparseLinear(one, compiled=True), torch.randn(1, 20)
    module.load_state_dict(SparseLinear(other).state_dict())
    assert torch.equal(module(x), x.flip(1))
    assert torch.equal(copy.deepcopy(module)(x), x.flip(1))


@pytest.mark.parametrize("layer", [nn.Conv2d(8, 80, 3), nn.Linear(80, 500)], ids=["sums", "a vector"])
def test_threads_share_compiled_code(layer: nn.Module) -> None:
    if library() is None:
        pytest.skip("no compiler works here")
    torch.manual_seed(0)
    x = torch.randn(3, 8, 20, 20) if isinstance(layer, nn.Conv2d) else torch.randn(1, 80)
    module, threads = ways(zeroed(layer, "weights", 0), x)["compiled"], torch.get_num_threads()
    one = module(x)
    try:
        torch.set_num_threads(2)
        assert torch.equal(module(x), one)
    finally:
        torch.set_num_threads(threads)


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchlasso.inference.executions.library", lambda: None)
    (layer,) = find_layers(zeroed(nn.Conv2d(32, 16, 1), "weights", 0))
    with pytest.raises(RuntimeError, match="nothing could be compiled"):
        executions()["compiled"](layer)


def test_a_sparse_layer_tells_its_sizes_and_its_weight() -> None:
    layer = zeroed(nn.Linear(32, 16), "weights", 0)
    sparse = ways(layer)["csr"]
    assert (sparse.in_features, sparse.out_features) == (32, 16)
    assert torch.equal(sparse.weight.to_dense(), layer.weight.detach())
    conv = zeroed(nn.Conv2d(8, 4, 3, stride=2, padding=1), "weights", 0)
    sparse = ways(conv)["csr"]
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups"):
        assert getattr(sparse, name) == getattr(conv, name)


def test_they_cannot_be_trained() -> None:
    sparse = SparseLinear(torch.eye(4))
    assert not sparse.training
    assert sparse.eval() is sparse
    with pytest.raises(ValueError, match="mode must be False: a SparseLinear is for inference"):
        nn.Sequential(sparse).train()


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="block must divide both sizes"):
        SparseMatrix(torch.ones(4, 6), block=4)
    with pytest.raises(ValueError, match="one group"):
        SparseConvolution(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.raises(ValueError, match="input must not be smaller than the kernel"):
        SparseConvolution(nn.Conv2d(1, 1, 3))(torch.ones(1, 1, 2, 5))
    for shape in ((1, 2, 5, 5), (4, 5), (2, 1, 5, 5, 5)):  # compiled code would read beyond the tensor
        with pytest.raises(ValueError, match="input must have 3 channels"):
            SparseConvolution(nn.Conv2d(3, 1, 3), compiled=True)(torch.ones(shape))
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        SparseLinear(torch.eye(4))(torch.ones(3, 5))


def test_two_of_four_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a GPU can run torch's 2:4 weights; this checks that they are used correctly."""
    weight = torch.zeros(8, 8).index_fill_(1, torch.tensor([0, 3, 5, 6]), 1.0)
    assert semistructured.fits(weight)
    assert not semistructured.fits(weight[:, :7])
    layer = nn.Linear(8, 8)
    with torch.no_grad():
        layer.weight.mul_(weight)
    assert "2:4" not in ways(layer)
    monkeypatch.setattr(semistructured, "to_sparse_semi_structured", lambda w: w)
    x = torch.randn(3, 8)
    torch.testing.assert_close(semistructured.SemiStructuredLinear(layer.weight, layer.bias)(x), layer(x))
