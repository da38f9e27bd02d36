"""The operations of a model: the costs of a budget and the plan of a compaction agree with torch's counter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchlasso._core.flops import counted_flops, flops_of_modules
from torchlasso.compaction.operations import count, multiplications, products
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
    if name not in ("attention", "recurrent"):  # a budget needs layers that turn channels into channels
        weights = [p for p in model.parameters() if p.dim() > 1]
        assert Flops.measured(Probe(model, weights, x)).dense * len(x) == whole


class Squared(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        return x @ x  # one value is both factors


def test_a_product_of_a_value_with_itself_is_counted() -> None:
    units = find_units(Squared(3, 4), torch.randn(2, 4, 3))
    assert multiplications(units.structure, Removal({})) == 2 * (4 * 4 * 3 + 4**3)
    assert count(products(units.structure), Removal({})) == 2 * 4**3


def test_recurrent_layers_of_a_gpu_are_counted() -> None:
    x, state = torch.empty(5, 3, 4, device="meta"), torch.empty(2, 3, 6, device="meta")  # an LSTM with two layers
    matrices = [torch.empty(24, width, device="meta") for width in (4, 6, 6, 6)]
    first, second, third, fourth = matrices
    bias = torch.empty(24, device="meta")
    weights = [first, second, bias, bias, third, fourth, bias, bias]
    with counted_flops() as counter:
        torch.ops.aten._cudnn_rnn(x, weights, 4, None, state, state, 2, 6, 0, 2, False, 0.0, False, False, [], None)
    assert counter.get_total_flops() == 2 * 5 * 3 * sum(w.numel() for w in matrices)


class Heads(nn.Module):
    """Attention between linear layers, with its products by one of torch's ways, and a GRU beside it."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.before = nn.Linear(6, 8)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.gate = nn.GRU(6, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.before(x), self.gate(x)[0].mean(-1, keepdim=True)
        q, k, v = (f(x).unflatten(-1, (4, 2)).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.way == "fused":
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        elif self.way == "bmm":
            q, k, v = (t.reshape(-1, *t.shape[2:]) for t in (q, k, v))
            scores = torch.baddbmm(torch.zeros(()), q, k.mT)
            y = torch.bmm(scores.softmax(-1), v).unflatten(0, (-1, 4))
        elif self.way == "einsum":
            y = torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).softmax(-1), v)
        else:
            y = torch.matmul((q @ k.transpose(-1, -2)).softmax(-1), v)
        return gate * self.out(y.transpose(1, 2).flatten(2))[:, :1]


@pytest.mark.parametrize("way", ["matmul", "fused", "bmm", "einsum"])
def test_a_budget_counts_the_operations_of_live_heads(way: str) -> None:
    torch.manual_seed(0)
    model, x = Heads(way).eval(), torch.randn(5, 7, 6)
    with torch.no_grad(), counted_flops() as counter:
        model(x)
    probe = Probe(model, [model.query.weight, model.key.weight, model.value.weight], x)
    cost = Flops.measured(probe)
    whole = counter.get_total_flops() / len(x)
    products, gates = 2 * 2 * 4 * 7 * 7 * 2, 2 * 7 * (6 + 3) * 9
    assert cost.dense == whole
    assert cost.fixed == (gates + products if way == "einsum" else gates)  # a fixed part cannot be too small
    assert Flops.restored(cost.state_dict()) == cost
    with torch.no_grad():
        for layer in (model.query, model.key, model.value):
            layer.weight[2:4] = layer.bias[2:4] = layer.weight[6:] = layer.bias[6:] = 0.0  # two of four heads
    weights = [layer.weight.detach() for layer in (model.query, model.key, model.value)]
    halved = 4 * 2 * 7 * 8 * 8 / 2 + (0 if way == "einsum" else products / 2)
    assert cost.left(probe(weights), probe.sites) == whole - halved
