"""A mask, table or cache for the longest input is not cut off behind the length of the example."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl

LONGEST, EXAMPLE, DEAD = 16, 5, 8  # the hidden layer has as many neurons as are read at most


class Reader(nn.Module):
    """A hidden layer with half of its units dead, and a tensor that is read up to the length of the input."""

    def __init__(self, mix: Callable[[Reader, Tensor, int], Tensor], learnt: bool = False) -> None:
        super().__init__()
        self.mix = mix
        self.embed, self.hidden, self.head = nn.Linear(3, 4), nn.Linear(4, 2 * DEAD), nn.Linear(2 * DEAD, 2)
        square, rows = torch.rand(LONGEST, LONGEST), torch.zeros(1, LONGEST, 4)
        if learnt:
            self.square, self.rows = nn.Parameter(square), nn.Parameter(rows)
        else:
            self.register_buffer("square", square)
            self.register_buffer("rows", rows)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mix(self, self.embed(x), x.shape[1])
        return self.head(F.relu(self.hidden(h)))


def causal(net: Reader, h: Tensor, length: int) -> Tensor:
    scores = h @ h.transpose(1, 2)
    unseen = net.square.tril()[None, None, :length, :length][0] == 0
    return scores.masked_fill(unseen, float("-inf")).softmax(-1) @ h


def by_the_column(net: Reader, h: Tensor, length: int) -> Tensor:
    return net.square[:, :length].t()[:, :length] @ h


def one_step_after_the_other(net: Reader, h: Tensor, length: int) -> Tensor:
    return net.square.exp()[:length].sigmoid()[:, :length] @ h


def cache(net: Reader, h: Tensor, length: int) -> Tensor:
    keys = net.rows.clone()
    keys[:, :length] = h[:1]
    return h @ keys[:, :length].transpose(1, 2) @ keys[:, :length]


def cut_behind_a_product(net: Reader, h: Tensor, length: int) -> Tensor:
    keys = net.rows.clone()
    keys[:, :length] = h[:1]
    return (h @ keys.transpose(1, 2))[..., :length] @ h


def from_the_end(net: Reader, h: Tensor, length: int) -> Tensor:
    return net.square[LONGEST - length :][:, LONGEST - length :] @ h


MIXES = [causal, by_the_column, one_step_after_the_other, cache, cut_behind_a_product, from_the_end]


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("learnt", [False, True], ids=["buffer", "parameter"])
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: mix.__name__)
def test_inputs_of_any_length_give_the_same(mix: Callable[[Reader, Tensor, int], Tensor], learnt: bool):
    net = Reader(mix, learnt).eval()
    with torch.no_grad():
        net.hidden.weight[:DEAD], net.hidden.bias[:DEAD] = 0, 0.2
    small, report = tl.compact(net, torch.randn(2, EXAMPLE, 3), return_report=True)
    assert report.removed == DEAD
    assert small.square.shape == net.square.shape
    assert small.rows.shape == net.rows.shape
    for length in (1, EXAMPLE + 1, LONGEST):
        x = torch.randn(3, length, 3)
        torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)


def test_the_report_has_the_reason():
    report = tl.compact(Reader(causal), torch.randn(2, EXAMPLE, 3), return_report=True)[1]
    reasons = {why for family in report.families for why in family.why}
    assert "the part of it that is read depends on the sizes of the inputs, such as their length" in reasons


def test_a_tensor_that_is_never_read_is_removed():
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.both, self.head = nn.Linear(3, 8), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.both(x)[..., :5]))

    net, x = Half(), torch.randn(4, 3)
    small, report = tl.compact(net, x, return_report=True)
    assert report.removed == 2  # one of the three has to be left
    torch.testing.assert_close(small(x), net(x))
