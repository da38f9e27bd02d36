"""The operations of a model: the costs of a budget and the plan of a compaction agree with torch's counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchlasso._core.flops import counted_flops, flops_of_modules
from torchlasso.compaction.operations import multiplications
from torchlasso.compaction.removal import Removal
from torchlasso.control.costs import Flops
from torchlasso.control.live_channels import Probe
from torchlasso.graph import find_units


class Attention(nn.Module):
    """One layer of attention, which a CPU runs as a single operator."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x, x, need_weights=False)[0]


class LastStates(nn.Module):
    """The last states and cells of an LSTM with two layers and both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 5, 2, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _, (states, cells) = self.layer(x)
        return states[-1], cells[0]


CASES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "dense": (nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2)), (3, 5)),
    "convolutions": (
        nn.Sequential(nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 2, groups=2)),
        (2, 2, 9, 9),
    ),
    "transposed": (nn.Sequential(nn.ConvTranspose1d(3, 4, 3, stride=2), nn.Tanh(), nn.Conv1d(4, 2, 1)), (2, 3, 5)),
    "attention": (Attention(), (2, 5, 8)),
    "recurrent": (LastStates(), (6, 2, 4)),
}


@pytest.mark.parametrize("name", CASES)
def test_all_counts_agree(name: str) -> None:
    model, shape = CASES[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model.eval()
    with torch.no_grad(), counted_flops() as counter:
        model(x)
    whole = counter.get_total_flops()
    assert flops_of_modules(model, x)[model] == whole > 0
    assert 2 * multiplications(find_units(model, x).structure, Removal({})) == whole
    if name not in ("attention", "recurrent"):  # a budget counts layers that turn channels into channels
        weights = [p for p in model.parameters() if p.dim() > 1]
        assert Flops.measured(Probe(model, weights, x)).dense * len(x) == whole


def test_recurrent_layers_of_a_gpu_are_counted() -> None:
    x, state = torch.empty(5, 3, 4, device="meta"), torch.empty(2, 3, 6, device="meta")  # an LSTM with two layers
    matrices = [torch.empty(24, width, device="meta") for width in (4, 6, 6, 6)]
    first, second, third, fourth = matrices
    bias = torch.empty(24, device="meta")
    weights = [first, second, bias, bias, third, fourth, bias, bias]
    with counted_flops() as counter:
        torch.ops.aten._cudnn_rnn(x, weights, 4, None, state, state, 2, 6, 0, 2, False, 0.0, False, False, [], None)
    assert counter.get_total_flops() == 2 * 5 * 3 * sum(w.numel() for w in matrices)
