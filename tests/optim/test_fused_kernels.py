"""Kernels by themselves: they write nothing but their runs, and are compiled where the code changes."""

import functools
import itertools
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import torchlasso as tl
from tests.support.implementations import random_gradients
from torchlasso.optim.fused import inductor
from torchlasso.optim.fused.inductor import KernelSource, kernel
from torchlasso.optim.fused.memory import FlatViews
from torchlasso.optim.fused.program import FusedStep, RowStep, Template
from torchlasso.optim.fused.rows import RowKernel, row_kernel
from torchlasso.optim.fused.updates import Adam, HeavyBall

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# an update, and the numbers of a step with λ = 0.2 first
UPDATES = {
    "heavy ball": (HeavyBall(), [0.2, 0.0, 0.1, 0.9, 1.0, 0.1]),
    "Adam": (Adam(), [0.2, 0.0, 0.99, 0.1, 0.05, 1e-3, 0.1, 0.1, 1e-9, 0.3]),
}
EACH = pytest.mark.parametrize("update", UPDATES)
LENGTHS = [0, 1, 2, 15, 16, 17, 1000]
SIZES = list(itertools.product([1, 2, 15, 16, 17], [1, 2, 15, 16, 17, 1000]))
OUTSIDE = 1234.5
GAP = 16  # numbers


def spaced(sizes, dtype: torch.dtype, make) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Tensors in one memory with a gap around each, and that memory."""
    total = sum(int(torch.Size(size).numel()) + GAP for size in sizes) + GAP
    memory, place, views = torch.full((total,), OUTSIDE, dtype=dtype), GAP, []
    for size in sizes:
        n = torch.Size(size).numel()
        view = memory[place : place + n].view(size)
        view.copy_(make(size))
        views.append(view)
        place += n + GAP
    return memory, views


def is_untouched(memory: torch.Tensor, views: list[torch.Tensor]) -> bool:
    outside = torch.ones_like(memory, dtype=torch.bool)
    for view in views:
        outside[view.storage_offset() : view.storage_offset() + view.numel()] = False
    return bool((memory[outside] == OUTSIDE).all())


def step(source: FusedStep, sizes, numbers: list[float], dtype: torch.dtype) -> list[torch.Tensor]:
    """Return the weights after one step on tensors of these sizes, checked against the function of the kernel."""
    generator = torch.Generator().manual_seed(0)

    def make(size):
        t = torch.randn(size, generator=generator, dtype=torch.float64)
        return torch.cat([torch.zeros_like(t[: len(t) // 3]), t[len(t) // 3 :]])

    memories, columns = zip(*(spaced(sizes, dtype, make) for _ in range(2 + len(source.update.buffers))), strict=True)
    if source.update.diagonal:
        for square in columns[-1]:
            square.square_().add_(0.1)
    expected = [[t.clone() for t in run] for run in zip(*columns, strict=True)]
    shapes = list(zip(*sizes, strict=True))
    factors = [w**0.5 for w in shapes[1]] if len(shapes) == 2 else []
    where = FlatViews(columns, shapes, factors)
    make_kernel = row_kernel if isinstance(source, RowStep) else kernel
    flags = make_kernel(source, where, len(numbers))(where, numbers)
    near = []
    for run, factor in zip(expected, factors or [1.0] * len(expected), strict=True):
        if run[0].numel():
            near += source(run, torch.tensor([numbers[0] * factor, *numbers[1:]], dtype=dtype).unbind())[:1]
    close = {"rtol": 100 * torch.finfo(dtype).eps, "atol": 10 * torch.finfo(dtype).eps}
    torch.testing.assert_close(list(columns), [list(column) for column in zip(*expected, strict=True)], **close)
    assert flags is None or torch.equal(flags, torch.cat(near))
    assert all(map(is_untouched, memories, columns))
    return columns[0]


@DTYPES
@EACH
def test_single_weights_are_written_and_nothing_else(update, dtype):
    mine, numbers = UPDATES[update]
    source = FusedStep(mine, Template.of(tl.L1())[0])
    ws = step(source, [(n,) for n in LENGTHS], numbers, dtype)
    assert 0 < (ws[-1] == 0).sum() < 1000
    for n in LENGTHS:
        step(source, [(n,)], numbers, dtype)


@DTYPES
@EACH
def test_rows_are_written_and_nothing_else(update, dtype):
    mine, numbers = UPDATES[update]
    source = RowStep(mine, Template.of(tl.L1())[0])
    ws = step(source, SIZES, numbers, dtype)
    assert 0 < sum(int((w == 0).all(dim=1).sum()) for w in ws) < sum(map(len, ws))
    for size in SIZES:
        step(source, [size], numbers, dtype)


PENALTIES = [tl.MCP(gamma=20.0), tl.SCAD(a=30.0), tl.LogSum(), tl.LHalf(), tl.ElasticNet(l1_ratio=0.3)]


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda penalty: type(penalty).__name__)
def test_the_rows_of_every_penalty_are_translated(penalty):
    mine, (lam, *numbers) = UPDATES["heavy ball"]
    template, own = Template.of(penalty)
    ws = step(RowStep(mine, template), SIZES, [lam, *own, *numbers], torch.float64)
    assert 0 < sum(int((w == 0).all(dim=1).sum()) for w in ws) < sum(map(len, ws))


@dataclass(frozen=True, kw_only=True)
class Peculiar(tl.L1):
    """L1 by an operator that nothing translates."""

    def prox_phi(self, r, lam, step):
        return torch.relu(r - step * lam) + 0.0 * torch.special.erfcx(r)


def test_an_operator_without_a_translation_is_named_and_the_step_is_right_all_the_same():
    results = []
    for fused in (False, True):
        w = nn.Parameter(torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6))
        optimizer = tl.ProxSGD([{"params": [w], "penalty": Peculiar(over=tl.Rows()), "lam": 1.5}], lr=0.1, fused=fused)
        with pytest.warns(UserWarning, match="erfcx.*translation") if fused else nullcontext():
            for number in range(5):
                random_gradients([w], number)
                optimizer.step()
        results.append(w.detach())
    torch.testing.assert_close(*results)
    assert (results[0] == 0).all(dim=1).any()


@pytest.mark.parametrize("form", ["proximal", "latent"])
@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1.0, 1e22, 1e30])
def test_rows_whose_squares_overflow_or_are_lost(scale, form):
    results = []
    for fused in (False, True):
        w = nn.Parameter(torch.linspace(-1, 1, 48).view(8, 6) * scale)
        w.data[2] = 0
        groups = [{"params": [w], "penalty": tl.L1(over=tl.Rows(weighted=False)), "lam": 2.5 * scale}]
        optimizer = tl.ProxSGD(groups, lr=0.1, form=form, fused=fused)
        for number in range(3):
            random_gradients([w], number)
            w.grad[:2] *= scale
            w.grad[2:] = 0
            optimizer.step()
        results.append(w.detach() / scale)
    torch.testing.assert_close(*results)
    assert 1 < (results[0] == 0).all(dim=1).sum() < 8


class EarlyWrites(KernelSource):
    """A step that works in place on a copy of its gradient, and on its weights before its end."""

    def __call__(self, tensors, numbers):
        w, grad = tensors
        scaled = grad.clone().mul_(numbers[0])
        w.sub_(scaled)
        w.copy_(torch.where(w.abs() < 0.5, 0.0, w))
        return []


def test_a_function_may_write_before_its_end():
    w, grad = torch.randn(2, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = w.clone()
    EarlyWrites()([expected, grad], torch.tensor([0.3], dtype=torch.float64).unbind())
    views = FlatViews([[w], [grad]], [[100]])
    kernel(EarlyWrites(), views, 1)(views, [0.3])
    torch.testing.assert_close(w, expected)
    assert 0 < (w == 0).sum() < 100


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="this processor has no AVX")
def test_rows_run_the_same_code_with_wider_registers(monkeypatch):
    from torch._inductor.codecache import CppCodeCache
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    widths = []

    def compiled(text):
        widths.append(pick_vec_isa().bit_width())
        return SimpleNamespace(step=None)

    monkeypatch.setattr(CppCodeCache, "load", compiled)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    mine, numbers = UPDATES["heavy ball"]
    RowKernel(RowStep(mine, Template.of(tl.L1())[0]), torch.float32, 2 + len(mine.buffers), len(numbers))
    assert widths == [256]


# --- when something is compiled ---


def test_a_change_of_the_code_is_compiled_and_a_change_of_numbers_is_not(monkeypatch):
    made = []
    monkeypatch.setattr(inductor, "_kernel", functools.cache(lambda *form: made.append(form) or inductor.Kernel(*form)))
    ws = [nn.Parameter(torch.linspace(-1, 1, 24, dtype=torch.float64).view(4, 6))]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "penalty": tl.MCP(), "lam": 0.1}
    optimizer = tl.ProxSGD(ws, fused=True, **options)
    counts = []
    # the first line is the start, the last two are other code: no momentum, and the opposite sign
    changes = [{}, {"weight_decay": 0.2}, {"momentum": 0.5}, {"dampening": 0.5}, {"momentum": 0.0}, {"maximize": True}]
    for step, change in enumerate(changes):
        optimizer.param_groups[0].update(change)
        random_gradients(ws, step)
        optimizer.step()
        counts.append(len(made))
    assert counts == [1, 1, 1, 1, 2, 3]


def test_a_later_process_finds_the_kernel_that_inductor_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    source = FusedStep(HeavyBall(), Template.of(tl.L1())[0])
    numbers, results = UPDATES["heavy ball"][1], []
    for found in (0, 1):
        hits = counters["inductor"]["fxgraph_cache_hit"]
        made = inductor.Kernel(source, (torch.float64,) * 3, len(numbers), False)
        assert counters["inductor"]["fxgraph_cache_hit"] == hits + found
        ts = [torch.linspace(-1, scale, 37, dtype=torch.float64) for scale in (1, 2, 3)]
        made(FlatViews([[t] for t in ts], [[37]]), numbers)
        results.append(torch.stack(ts))
    assert torch.equal(*results)
    assert (results[0][0] == 0).any()
    assert results[0][0].any()
