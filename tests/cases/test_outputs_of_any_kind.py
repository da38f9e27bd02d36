"""Outputs of any kind, and of any size, are read and compared; a model is counted whatever its modules are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from torchlasso.compaction.verify import disagreement


@dataclass
class Plain:
    logits: Tensor
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Nested:
    parts: list[Plain]
    name: str = "nested"


@dataclass(slots=True)
class Slotted:
    logits: Tensor


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "dataclass": Plain,
    "frozen and nested": lambda y: {"all": Nested([Plain(y, y.exp())])},
    "slots": Slotted,
    "namespace": lambda y: SimpleNamespace(logits=y, more=(y.sum(), 3)),
}


class Made(nn.Module):
    def __init__(self, kind: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.kind, self.hidden, self.head = kind, nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.kind(self.head(F.relu(self.hidden(x))))


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def dead(net: nn.Module, bias: float = 0.3) -> nn.Module:
    with torch.no_grad():
        net.hidden.weight[:4], net.hidden.bias[:4] = 0, bias
    return net


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_an_output_of_any_kind(kind: Callable[[Tensor], Any]):
    net, x = dead(Made(kind)), torch.randn(3, 4)
    small, report = tl.compact(net, x, return_report=True)
    assert report.removed == 4
    assert type(small(x)) is type(net(x))


def test_outputs_in_training_of_any_kind_are_compared():
    class Trained(Made):
        def forward(self, x: Tensor) -> Any:
            h = F.relu(self.hidden(x))
            return Plain(self.head(h), h) if self.training else self.head(h)  # the dead units are part of its output

    report = tl.compact(dead(Trained(Plain)), torch.randn(3, 4), return_report=True)[1]
    assert not report.removed
    assert "it is needed in training" in report.families[0].why[0]


@pytest.mark.parametrize("scale", [1e-10, 1e-30, 1.0, 1e10])
def test_a_difference_is_seen_however_small_the_outputs_are(scale: float):
    net, x = Made(lambda y: y * scale), torch.randn(3, 4)
    near = Made(lambda y: y * scale * 1.000001)
    near.load_state_dict(net.state_dict())
    assert disagreement(net, near, x) == "the outputs differ by 1.0e-06"
    assert not disagreement(net, net, x)


@pytest.mark.parametrize(
    "cancel",
    [
        lambda y: y - y.mean(1, keepdim=True).expand_as(y) - (y - y.mean(1, keepdim=True)),
        lambda y: F.linear(torch.cat([y, -y], 1), torch.full((3, 4), 0.1, dtype=y.dtype)),
        lambda y: (y.softmax(1).sum(1) - 1) * 1e-3,
    ],
)
def test_rounding_is_not_a_difference_where_numbers_cancel(cancel: Callable[[Tensor], Tensor]):
    net = dead(Made(cancel))
    assert tl.compact(net, torch.randn(3, 4), return_report=True)[1].removed == 4


def test_a_parameter_may_be_the_input_of_a_module():
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries, self.given = nn.Parameter(torch.randn(5, 2)), nn.Identity()
            self.hidden, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.hidden(x))) @ self.given(self.queries).t()

    x = torch.randn(3, 4, requires_grad=True)
    net = dead(Queries())
    small, report = tl.compact(net, x, return_report=True)
    assert report.removed == 4
    assert 0 < report.after.flops < report.before.flops
    torch.testing.assert_close(small(x), net(x))
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_linear_layer_with_spectral_norm_is_copied_in_one_precision(norm: Callable[[nn.Module], nn.Module]):
    net = dead(Made(lambda y: y))
    net.head = norm(net.head)
    with torch.no_grad():
        tl.compact(net.eval(), torch.randn(3, 4))


def test_experts_that_choose_their_rows():
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router, self.hidden, self.head = nn.Linear(6, 3), nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            weights, which = self.router(x).softmax(-1).topk(2, -1)
            out = torch.zeros_like(x)
            for expert in range(3):
                row, place = torch.where(which == expert)
                out.index_add_(0, row, self.head(F.relu(self.hidden(x[row]))) * weights[row, place, None])
            return x + out

    net = dead(Experts())
    small, report = tl.compact(net, torch.randn(9, 6), return_report=True)
    assert report.removed == 4
    x = torch.randn(20, 6)
    torch.testing.assert_close(small(x), net(x))
