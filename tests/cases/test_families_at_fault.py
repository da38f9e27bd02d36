"""If a constant cannot be left out of a sum, its families stay, and other families are removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl

CHANNELS, DEAD, STATES = 8, 3, 4

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {  # out of parameters alone: (channels, states) -> (channels,)
    "sum": lambda w: w.exp().sum(1),
    "norm": lambda w: w.norm(dim=1),
    "matmul": lambda w: w.exp() @ torch.ones(STATES, dtype=w.dtype),
    "einsum": lambda w: torch.einsum("cs,cs->c", w, w),
    "by hand": lambda w: (w / w.norm(dim=1, keepdim=True)).sum(1),
}


class Mixed(nn.Module):
    """Channels are scaled by sums over states, which no input reaches."""

    def __init__(self, kernel: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.kernel, self.states = kernel, nn.Parameter(torch.rand(CHANNELS, STATES) + 0.5)
        self.first, self.last = nn.Linear(3, CHANNELS), nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu() * self.kernel(self.states))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_channels_are_removed_and_states_stay(kernel: Callable[[Tensor], Tensor]):
    torch.manual_seed(0)
    net = Mixed(kernel).eval()
    with torch.no_grad():
        net.first.weight[:DEAD], net.first.bias[:DEAD] = 0, 0
    small = tl.compact(net, torch.randn(2, 3))
    assert small.states.shape == (CHANNELS - DEAD, STATES)
    x = torch.randn(5, 3)
    torch.testing.assert_close(small(x), net(x))


def test_a_state_of_zeros_is_removed_as_well():
    torch.manual_seed(0)
    net = Mixed(KERNELS["einsum"]).eval()
    with torch.no_grad():
        net.states[:, 0] = 0
    small = tl.compact(net, torch.randn(2, 3))
    assert small.states.shape == (CHANNELS, STATES - 1)
    x = torch.randn(5, 3)
    torch.testing.assert_close(small(x), net(x))
