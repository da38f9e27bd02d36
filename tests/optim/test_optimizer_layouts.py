"""Parameters and gradients of every layout: strided, transposed, channels last, with no elements or dimensions."""

import pytest
import torch
from torch import nn

import torchlasso as tl
from tests.support.implementations import (
    ALL,
    EACH,
    FEW,
    FEW_NAMES,
    IMPLEMENTATIONS,
    NAMES,
    assert_alike,
    options_of,
    random_gradients,
)
from tests.support.optimizers import CASES, cosine
from tests.support.pairwise import pairwise

# name -> the parameter as a view of another tensor
LAYOUTS = {
    "contiguous": lambda: numbers(6, 4),
    "transposed": lambda: numbers(4, 6).t(),
    "rows left out": lambda: numbers(12, 4)[::2],
    "columns left out": lambda: numbers(6, 8)[:, 1:5],
    "every third": lambda: numbers(72)[1::3],
    "permuted": lambda: numbers(2, 3, 4).permute(2, 0, 1),
    "offset": lambda: numbers(30)[6:],
    "channels last": lambda: numbers(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
    "one element": lambda: numbers(3)[1:2],
    "no dimensions": lambda: numbers(3)[1],
    "no elements": lambda: numbers(3, 4)[:, :0],
}
GRADIENTS = {
    "contiguous": lambda grad, w: grad.contiguous(),
    "as the parameter": lambda grad, w: torch.empty_strided(w.size(), w.stride(), dtype=w.dtype).copy_(grad),
    "as torch would make it": lambda grad, w: torch.empty_like(w).copy_(grad),
    "reversed": lambda grad, w: reverse(reverse(grad).contiguous()),
}


def reverse(t: torch.Tensor) -> torch.Tensor:
    """Its dimensions in the opposite order."""
    return t.permute(list(reversed(range(t.dim()))))


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def train(case: str, implementation: str, ws: list[nn.Parameter], grad_as=GRADIENTS["contiguous"]) -> None:
    optimizer = tl.proximal(CASES[case][0])(ws, penalty=tl.L1(), lam=0.5, **options_of(case, implementation))
    scheduler = cosine(optimizer)
    for step in range(20):
        random_gradients(ws, step)
        for w in ws:
            w.grad = grad_as(w.grad, w)
        optimizer.step()
        scheduler.step()


@pairwise(case=NAMES, implementation=IMPLEMENTATIONS, layout=LAYOUTS)
def test_a_parameter_and_gradients_of_any_layout_are_as_contiguous_ones(case, implementation, layout):
    plain = nn.Parameter(LAYOUTS[layout]().clone(memory_format=torch.contiguous_format))
    train(case, "one by one", [plain])
    for grad_as in GRADIENTS.values():
        w = nn.Parameter(LAYOUTS[layout]())
        stride, address = w.stride(), w.data_ptr()
        train(case, implementation, [w], grad_as)
        assert (w.stride(), w.data_ptr()) == (stride, address), "it is still where it was"
        assert_alike(w.detach(), plain.detach())


@pairwise(case=FEW_NAMES, implementation=IMPLEMENTATIONS, layout=LAYOUTS)
def test_memory_between_the_elements_of_a_parameter_is_not_touched(case, implementation, layout):
    view = LAYOUTS[layout]()
    whole = view if view._base is None else view._base
    outside = torch.ones_like(whole, dtype=torch.bool)
    outside.as_strided(view.size(), view.stride(), view.storage_offset()).fill_(False)
    before = whole.clone()
    train(case, implementation, [nn.Parameter(view)])
    assert torch.equal(whole[outside], before[outside])
    assert view.numel() == 0 or not torch.equal(whole, before)


@EACH
@ALL
def test_parameters_of_all_layouts_share_a_group(case, implementation):
    ws = [nn.Parameter(make()) for make in LAYOUTS.values()]
    plain = [nn.Parameter(w.detach().clone(memory_format=torch.contiguous_format)) for w in ws]
    train(case, implementation, ws)
    train(case, "one by one", plain)
    for w, expected in zip(ws, plain, strict=True):
        assert_alike(w.detach(), expected.detach())
    assert any((w == 0).any() for w in ws)


@EACH
@FEW
def test_two_views_of_one_memory_are_two_parameters(case, implementation):
    # as the flat parameters that some wrappers keep
    flat = numbers(24)
    ws, plain = ([nn.Parameter(t) for t in (flat[:10], flat[10:].view(7, 2))] for flat in (flat, flat.clone()))
    train(case, implementation, ws)
    train(case, "one by one", plain)
    assert_alike(flat, torch.cat([w.detach().reshape(-1) for w in plain]))


@EACH
@FEW
def test_expanded_gradients_are_gradients(case, implementation):
    # sum().backward() makes one number of stride zero
    results = []
    for expanded in (True, False):
        w = nn.Parameter(numbers(4, 5))
        optimizer = tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=0.1, **options_of(case, implementation))
        for step in range(10):
            grad = torch.full((), 0.3 - 0.05 * step, dtype=torch.float64).expand(4, 5)
            w.grad = grad if expanded else grad.contiguous()
            optimizer.step()
        results.append(w.detach())
    assert_alike(*results)


@EACH
@FEW
def test_an_expanded_parameter_is_refused_as_in_torch_and_memory_stays_as_it_is(case, implementation):
    memory = numbers(100)  # long, so that a step that writes further than it may does so here
    before = memory.clone()
    w = nn.Parameter(memory[:4].expand(3, 4))
    optimizer = tl.proximal(CASES[case][0])([w], penalty=tl.L1(), lam=0.1, **options_of(case, implementation))
    random_gradients([w], 0)
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        optimizer.step()
    assert torch.equal(memory, before)


# --- complex numbers ---


@pytest.mark.parametrize("implementation", ["one by one", "foreach"])
@ALL
def test_complex_parameters_without_a_penalty_are_stepped_as_in_torch(case, implementation):
    complexes = [nn.Parameter(torch.complex(numbers(3, 2), numbers(3, 2) + 1)) for _ in range(2)]
    real = nn.Parameter(numbers(4))
    base, options = CASES[case][0], options_of(case, implementation)
    groups = [{"params": [real]}, {"params": [complexes[0]], "penalty": None}]
    ours = tl.proximal(base)(groups, penalty=tl.L1(), lam=5.0, averaging=False, **options)
    theirs = base([complexes[1]], **options)
    for step in range(10):
        for w in (real, *complexes):
            w.grad = torch.randn(w.shape, generator=torch.Generator().manual_seed(step), dtype=w.dtype)
        ours.step()
        theirs.step()
    torch.testing.assert_close(*complexes, rtol=1e-10, atol=1e-13)
    assert (real == 0).any()


@EACH
@FEW
def test_complex_parameters_with_a_penalty_of_signs_are_refused(case, implementation):
    w = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    for penalty in (tl.SparseGroup(), tl.L1(over=tl.NM(2, 4)), tl.L1(over=tl.NonNegative())):
        with pytest.raises(TypeError, match="complex parameters cannot have the penalty"):
            tl.proximal(CASES[case][0])([w], penalty=penalty, lam=0.1, **options_of(case, implementation))


@FEW
def test_a_fused_step_of_complex_parameters_is_refused_as_in_torch(case):
    w = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    groups = [{"params": [nn.Parameter(numbers(2))]}, {"params": [w], "penalty": None}]
    optimizer = tl.proximal(CASES[case][0])(groups, penalty=tl.L1(), lam=0.1, **options_of(case, "fused"))
    w.grad = torch.ones_like(w)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"floating point|Complex"):
        optimizer.step()
    assert (w == 1).all()
