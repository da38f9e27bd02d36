"""Operators of all kinds: dead units go or stay with a reason, the outputs are the same, and nothing crashes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from tests.support.branches import CONSTANT, WIDTH, ZERO, Branch, Branches, kill, units_left

ALL = WIDTH - ZERO - CONSTANT  # left if all dead units go
NO_CONSTANT = WIDTH - ZERO  # the units left if only zero units are removed

Operator = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def in_place(write: Callable[[Tensor, Tensor, Tensor], Any], start: Callable[[Tensor], Tensor]) -> Operator:
    """An operator that writes the output of a layer into a new tensor."""

    def operator(h: Tensor, x: Tensor) -> Tensor:
        out = start(h)
        write(out, h, x)
        return out

    return operator


def into(*where: Any) -> Callable[[Tensor, Tensor, Tensor], Any]:
    return lambda out, h, x: out.__setitem__(where, h[where])


def shift(out: Tensor, h: Tensor, x: Tensor) -> None:
    out[:, :, 1:] = h[:, :, :-1]


# (batch, channels, length) to (batch, channels): over all places
OVER_LENGTH: dict[str, tuple[Operator, int]] = {
    "max": (lambda h, x: h.max(2)[0], ALL),
    "min": (lambda h, x: torch.min(h, dim=2).values, ALL),
    "median": (lambda h, x: h.median(2)[0], ALL),
    "mode": (lambda h, x: h.mode(2)[0], ALL),
    "kthvalue": (lambda h, x: h.kthvalue(2, 2)[0], ALL),
    "topk": (lambda h, x: h.topk(2, 2)[0].mean(2), ALL),
    "sort": (lambda h, x: h.sort(2).values[..., -1], ALL),
    "cummax": (lambda h, x: h.cummax(2)[0][..., -1], ALL),
    "aminmax": (lambda h, x: sum(torch.aminmax(h, dim=2)), ALL),
    "std_mean": (lambda h, x: sum(torch.std_mean(h, 2)), ALL),
    "var_mean": (lambda h, x: torch.var_mean(h, 2)[1], ALL),
    "any": (lambda h, x: (h > 1).any(2), ALL),
    "argmax": (lambda h, x: h.argmax(2), ALL),
    "windows": (lambda h, x: h.unfold(2, 2, 1).mean((2, 3)), ALL),
    "roll": (lambda h, x: h.roll(1, 2).amax(2), ALL),
    "flip": (lambda h, x: h.flip(2)[..., 0], ALL),
    "fourier": (lambda h, x: torch.fft.fft(h, dim=2).real.amax(2) / h.shape[2], ALL),
    "repeated": (lambda h, x: h.repeat_interleave(2, 2).mean(2), ALL),
    "where_shape": (lambda h, x: torch.where(torch.arange(h.shape[2]) < 2, h, 0).amax(2), ALL),
    "gathered": (lambda h, x: h.gather(2, h.argmax(2, keepdim=True))[..., 0], ALL),
    "frexp": (lambda h, x: torch.frexp(h)[0].amax(2), ALL),
    "number_of_values": (lambda h, x: h.mean(2) * torch.unique(x > 0).numel(), NO_CONSTANT),
    "number": (lambda h, x: h.mean(2) * x.sum().item(), NO_CONSTANT),
    "searched": (lambda h, x: torch.searchsorted(h.sort(2)[0], h)[..., 0], WIDTH),  # not understood
}
# (batch, channels, height, width) to the same
IN_PLACE: dict[str, tuple[Operator, int]] = {
    "slice": (in_place(shift, torch.zeros_like), NO_CONSTANT),
    "whole": (in_place(into(slice(None)), torch.empty_like), ALL),
    "channels": (in_place(into(slice(None), slice(0, ZERO + CONSTANT)), torch.clone), ALL),
    "one": (in_place(lambda out, h, x: out.__setitem__((..., 0), h[..., 1]), torch.clone), ALL),
    "copy": (in_place(lambda out, h, x: out.copy_(h), torch.empty_like), ALL),
    "elements": (in_place(lambda out, h, x: out.__setitem__(h > 9, 9.0), torch.clone), ALL),
    "rows": (in_place(lambda out, h, x: out.__setitem__(x[:, 0, 0, 0] > 0, 0.0), torch.clone), NO_CONSTANT),
    "columns": (in_place(lambda out, h, x: out.__setitem__((..., [0, 2]), h[..., [1, 1]]), torch.clone), ALL),
    "masked": (lambda h, x: h.masked_fill(x[:, :1] > 0, 0.0), NO_CONSTANT),
    "where": (lambda h, x: torch.where(x[:, :1] > 0, h, 0.0), NO_CONSTANT),
    "patches": (lambda h, x: F.fold(F.unfold(h, 2, stride=2), h.shape[2:], 2, stride=2), ALL),
    "shuffled": (lambda h, x: F.pixel_shuffle(F.pixel_unshuffle(h, 2), 2), ALL),
    "sampled": (lambda h, x: F.grid_sample(h, h.new_zeros(len(h), 3, 3, 2), align_corners=False), ALL),
    "fourier": (lambda h, x: torch.fft.ifft2(torch.fft.fft2(h)).real, ALL),
    "complex": (lambda h, x: torch.view_as_real(torch.view_as_complex(torch.stack([h, h], -1)))[..., 0], ALL),
    "added": (lambda h, x: torch.zeros_like(h).index_add(2, torch.zeros(h.shape[2], dtype=torch.long), h), NO_CONSTANT),
    "inverse": (lambda h, x: torch.linalg.inv(h @ h.mT + torch.eye(h.shape[2], dtype=h.dtype)), WIDTH),
}


def test_operators_over_a_length():
    layers = {name: (nn.Conv1d(4, WIDTH, 1), nn.Linear(WIDTH, 3)) for name in OVER_LENGTH}
    model = Branches({name: Branch(one, OVER_LENGTH[name][0], two) for name, (one, two) in layers.items()})
    example, *others = (torch.randn(size, dtype=torch.float64) for size in ((2, 4, 6), (3, 4, 7), (1, 4, 12)))
    left, why = units_left(model, example, others)
    assert left == {name: wanted for name, (_, wanted) in OVER_LENGTH.items()}
    assert "searchsorted is not understood" in why["searched"]


def test_operators_over_images():
    layers = {name: (nn.Conv2d(4, WIDTH, 1), nn.Conv2d(WIDTH, 3, 3)) for name in IN_PLACE}
    model = Branches({name: Branch(one, IN_PLACE[name][0], two) for name, (one, two) in layers.items()})
    example, *others = (torch.randn(size, dtype=torch.float64) for size in ((2, 4, 6, 6), (3, 4, 8, 8)))
    left, why = units_left(model, example, others)
    assert left == {name: wanted for name, (_, wanted) in IN_PLACE.items()}
    assert "linalg_inv_ex is not understood" in why["inverse"]


CHOSEN: dict[str, tuple[Operator, int]] = {
    "mask": (lambda h, x: h[x[:, 0] > 0], ALL),
    "nonzero": (lambda h, x: h[(x[:, 0] > 0).nonzero()[:, 0]], ALL),
    "sum": (lambda h, x: h[x[:, 0] > 0].sum(0, keepdim=True), NO_CONSTANT),
    "elements": (lambda h, x: h.masked_select(x[:, :1] > 0).view(-1, WIDTH), WIDTH),
    "sorted": (lambda h, x: h[x[:, 0].argsort()], ALL),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_rows_that_the_values_choose(name: str):
    operator, wanted = CHOSEN[name]
    model = Branches({name: Branch(nn.Linear(4, WIDTH), operator, nn.Linear(WIDTH, 3))})
    example, *others = (torch.randn(rows, 4, dtype=torch.float64) for rows in (6, 9, 12))
    left, _ = units_left(model, example, others)
    assert left == {name: wanted}


@pytest.mark.parametrize(
    "operator",
    [lambda h, x: h if x.sum() > 0 else 2 * h, lambda h, x: h[:, : int(x.sum().abs().item()) % 3 + 1].mean(1)],
    ids=["branch", "length"],
)
def test_a_path_that_the_values_choose_is_refused_in_one_line(operator: Operator, capfd: pytest.CaptureFixture[str]):
    model = Branches({"only": Branch(nn.Linear(4, WIDTH), operator, nn.Linear(WIDTH, 3))})
    with pytest.raises(ValueError, match="cannot be exported") as raised:
        tl.compact(model, torch.randn(2, 5, 4, dtype=torch.float64))
    said = str(raised.value)
    assert "\n" not in said
    assert "depends on the values of its inputs" in said
    assert re.search(r"test_operators\.py, line \d+", said)
    assert capfd.readouterr() == ("", "")  # torch would write the whole graph


@pytest.mark.parametrize(
    "first",
    [lambda x: x.sum(1), lambda x: x[:, 0], lambda x: x.norm(dim=1), lambda x: x.max(1)[0], lambda x: x.unbind(1)[1]],
)
def test_a_first_operator_that_lowers_the_rank(first: Callable[[Tensor], Tensor]):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
            self.double().eval()
            kill(self.hidden)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.hidden(x).relu()) * first(x)[:, None]

    model, x = Net(), torch.randn(4, 6, dtype=torch.float64)
    small = tl.compact(model, x)
    assert small.hidden.out_features == ALL
    torch.testing.assert_close(small(x), model(x))


def test_the_sizes_of_a_convolution_behind_views_are_its_own():
    class Shift(nn.Module):
        """A temporal shift: the tensor that slices are assigned to is read through a view."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, WIDTH, 1), nn.Conv2d(WIDTH, 4, 1)
            self.double().eval()

        def forward(self, x: Tensor) -> Tensor:
            batch, time = x.shape[:2]
            y = self.a(x.flatten(0, 1)).relu()
            y = y.view(batch, time, *y.shape[1:])
            out = torch.zeros_like(y)
            out[:, :-1] = y[:, 1:]
            return self.b(out.flatten(0, 1))

    model, x = Shift(), torch.randn(2, 3, 3, 4, 4, dtype=torch.float64)
    assert tl.compact(model, x).b.groups == 1
    kill(model.a)
    small = tl.compact(model, x)
    assert (small.b.in_channels, small.b.groups) == (NO_CONSTANT, 1)
    for frames in (3, 5):
        x = torch.randn(2, frames, 3, 4, 4, dtype=torch.float64)
        torch.testing.assert_close(small(x), model(x))


@pytest.mark.parametrize("turn", [lambda y: y.flatten(0, 1), lambda y: y.transpose(1, 2)], ids=["flat", "transposed"])
def test_a_constant_is_folded_into_a_batch_norm_behind_a_view(turn: Callable[[Tensor], Tensor]):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 6, bias=False)
            self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 2)
            self.double()
            nn.init.normal_(self.norm.running_mean)
            kill(self.a)

        def forward(self, x: Tensor) -> Tensor:
            y = self.b(self.a(x).relu())
            turned = self.norm(turn(y))
            y = turned.reshape_as(y) if turned.dim() == 2 else turned.transpose(1, 2)
            return self.out(y.relu().mean(1))

    model = Net().eval()
    small = tl.compact(model, torch.randn(2, 5, 4, dtype=torch.float64))
    assert small.a.out_features == ALL
    x = torch.randn(3, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(small(x), model(x))
    torch.testing.assert_close(small.train()(x), model.train()(x))
    torch.testing.assert_close(small.norm.bias, model.norm.bias)
