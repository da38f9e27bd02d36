"""A constant is folded where its effect is the same at every size that the model accepts, and stays where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from tests.support.branches import CONSTANT, WIDTH, ZERO, Branch, Branches, units_left

ALL = WIDTH - ZERO - CONSTANT  # left if all dead units go
NO_CONSTANT = WIDTH - ZERO  # the units left if only zero units are removed
DEPENDS = "its constant depends on the sizes of the inputs"


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def ones(h: Tensor, *shape: int) -> Tensor:
    return torch.ones(shape, dtype=h.dtype)


SAME: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda h, x: h.mean(2),
    "amax": lambda h, x: h.amax(2),
    "std": lambda h, x: h.std(2),
    "sum_by_length": lambda h, x: h.sum(2) / h.shape[2],
    "adaptive": lambda h, x: F.adaptive_avg_pool1d(h, 1)[..., 0],
    "attention": lambda h, x: (h.softmax(2) * h).sum(2),
    "infinity_norm": lambda h, x: h.norm(float("inf"), 2),
    "lp_of_windows": lambda h, x: F.lp_pool1d(h, 2, 2).amax(2),
    "edges_not_counted": lambda h, x: F.avg_pool1d(h, 3, 1, 1, count_include_pad=False).amax(2),
    "less_mean": lambda h, x: (h - h.mean(2, keepdim=True)).amax(2),
}
LENGTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": lambda h, x: h.sum(2),
    "norm": lambda h, x: h.norm(dim=2),
    "absolute": lambda h, x: h.norm(1, 2),
    "product": lambda h, x: h.prod(2),
    "cumulative": lambda h, x: h.cumsum(2)[..., -1],
    "einsum": lambda h, x: torch.einsum("bcl->bc", h),
    "matmul": lambda h, x: (h @ ones(h, h.shape[2], 1))[..., 0],
    "pooled": lambda h, x: F.lp_pool1d(h, 2, h.shape[2])[..., 0],
    "count": lambda h, x: (h > 0).sum(2),
    "by_length": lambda h, x: h.amax(2) / h.shape[2],
    "mean_and_sum": lambda h, x: h.mean(2) + h.sum(2),
    "trapezoid": lambda h, x: torch.trapezoid(h, dim=2),
}


def sequences(operators: dict[str, Callable[[Tensor, Tensor], Tensor]]) -> tuple[dict[str, int], dict[str, str]]:
    layers = {name: (nn.Conv1d(4, WIDTH, 1), nn.Linear(WIDTH, 3)) for name in operators}
    model = Branches({name: Branch(one, operators[name], two) for name, (one, two) in layers.items()})
    sizes = ((2, 4, 6), (3, 4, 6), (2, 4, 7), (1, 4, 13), (2, 4, 3))
    example, *others = (torch.randn(size, dtype=torch.float64) for size in sizes)
    return units_left(model, example, others)


def test_constants_that_are_equal_at_all_lengths_are_folded():
    left, _ = sequences(SAME)
    assert left == dict.fromkeys(SAME, ALL)


def test_constants_that_grow_with_the_length_stay_with_a_reason():
    left, why = sequences(LENGTH)
    assert left == dict.fromkeys(LENGTH, NO_CONSTANT)
    assert all(DEPENDS in reason for reason in why.values()), why


def test_a_constant_that_no_unit_had_before_stays_too():
    left, why = sequences({"logsumexp": lambda h, x: h.logsumexp(2)})  # log(length) of zeros
    assert left == {"logsumexp": WIDTH}
    assert DEPENDS in why["logsumexp"]


def test_only_the_branch_that_depends_on_the_length_stays_where_one_layer_reads_two():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.out = nn.Conv1d(4, WIDTH, 1), nn.Conv1d(4, WIDTH, 1), nn.Linear(2 * WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.cat([self.one(x).relu().sum(2), self.two(x).relu().mean(2)], 1))

    model = Two().eval()
    for layer in (model.one, model.two):
        with torch.no_grad():
            layer.weight[:4], layer.bias[:4] = 0, 1
    small = tl.compact(model, torch.randn(2, 4, 6))
    assert (small.one.out_channels, small.two.out_channels) == (WIDTH, WIDTH - 4)


BORDERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "zeros": (lambda: nn.Conv2d(WIDTH, 3, 3, padding=1), NO_CONSTANT),
    "stride": (lambda: nn.Conv2d(WIDTH, 3, 3, padding=1, stride=2), NO_CONSTANT),
    "dilation": (lambda: nn.Conv2d(WIDTH, 3, 3, padding=2, dilation=2), NO_CONSTANT),
    "transposed": (lambda: nn.ConvTranspose2d(WIDTH, 3, 3, padding=1), NO_CONSTANT),
    "average": (lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Conv2d(WIDTH, 3, 1)), NO_CONSTANT),
    "padded": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(WIDTH, 3, 3)), NO_CONSTANT),
    "replicated": (lambda: nn.Conv2d(WIDTH, 3, 3, padding=1, padding_mode="replicate"), ALL),
    "without": (lambda: nn.Conv2d(WIDTH, 3, 1), ALL),
    "not_counted": (
        lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.Conv2d(WIDTH, 3, 1)),
        ALL,
    ),
}


@pytest.mark.parametrize("side", [1, 2])
def test_a_border_of_zeros_is_seen_also_where_the_example_is_nothing_but_border(side: int):
    layers = {name: (nn.Conv2d(3, WIDTH, 1), make()) for name, (make, _) in BORDERS.items()}
    model = Branches({name: Branch(one, lambda h, x: h, two) for name, (one, two) in layers.items()})
    example, *others = (
        torch.randn(size, dtype=torch.float64) for size in ((1, 3, side, side), (2, 3, 5, 5), (1, 3, 4, 7))
    )
    left, _ = units_left(model, example, others)
    assert left == {name: wanted for name, (_, wanted) in BORDERS.items()}


def test_a_kernel_that_ignores_one_pixel_still_reads_others():
    model = nn.Sequential(nn.Conv2d(3, WIDTH, 1), nn.ReLU(), nn.Conv2d(WIDTH, 3, 3, padding=1)).double().eval()
    with torch.no_grad():
        model[2].weight[:, :, 1, 1] = 0
    small = tl.compact(model, torch.randn(1, 3, 1, 1, dtype=torch.float64))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(small(x), model(x))


class Bag(nn.Module):
    """The sum of words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.a, self.b = nn.Embedding(20, 6), nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        with torch.no_grad():
            self.a.weight[:4] = 0
            self.a.bias[:4] = torch.tensor([0.0, -1.0, 0.7, 1.3])

    def forward(self, ids: Tensor) -> Tensor:
        return self.b(self.a(self.embed(ids)).relu().sum(1))


def test_a_model_in_training_and_one_for_inference_too():
    model, ids, longer = Bag(), torch.randint(20, (2, 5)), torch.randint(20, (3, 9))
    wanted = model(longer).detach()
    fast = tl.accelerate(model.eval(), ids, seconds=0.01)
    torch.testing.assert_close(fast(longer), wanted)
    optimizer = tl.ProxSGD(tl.param_groups(model, tl.L1(), lam=1e-3), lr=0.1)
    report = tl.shrink_(model, optimizer, ids)
    assert model.a.out_features == WIDTH - 2
    assert any(DEPENDS in reason for family in report.families for reason in family.why)
    torch.testing.assert_close(model(longer), wanted)


def test_a_constant_of_a_model_with_a_single_size_is_folded():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor) -> Tensor:
            assert x.shape == (2, 6, 4), "one size alone"
            return self.b(self.a(x).relu().sum(1))

    model = Fixed().eval()
    with torch.no_grad():
        model.a.weight[:4], model.a.bias[:4] = 0, 1
    x = torch.randn(2, 6, 4)
    small = tl.compact(model, x)
    assert small.a.out_features == 4
    torch.testing.assert_close(small(x), model(x))
