"""The recurrences of a graph compute what torch's layers do, and units of recurrent layers are found in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchlasso as tl
from tests.support.pairwise import pairwise
from torchlasso.graph import find_units
from torchlasso.graph.flops import flops_of_units
from torchlasso.graph.recurrence import gru_states, lstm_cells, lstm_states, relu_states, tanh_states

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch says so

LAYERS: dict[str, tuple[type[nn.RNNBase], dict[str, Any], Any]] = {
    "tanh": (nn.RNN, {}, tanh_states),
    "relu": (nn.RNN, {"nonlinearity": "relu"}, relu_states),
    "gru": (nn.GRU, {}, gru_states),
    "lstm": (nn.LSTM, {}, lstm_states),
    "projected": (nn.LSTM, {"proj_size": 2}, lstm_states),
}


@pairwise(name=LAYERS, bias=[True, False], batch_first=[0, 1], reverse=[False, True])
def test_a_recurrence_computes_the_states_of_the_layer(name: str, bias: bool, batch_first: int, reverse: bool):
    cls, options, states = LAYERS[name]
    torch.manual_seed(0)
    layer = cls(3, 4, bias=bias, batch_first=bool(batch_first), bidirectional=True, dtype=torch.float64, **options)
    x, width = torch.randn(2, 5, 3, dtype=torch.float64), options.get("proj_size", 4)
    first = [torch.randn(2, 5 - 3 * batch_first, n, dtype=torch.float64) for n in (width, 4)]
    wanted, last = layer(x, tuple(first) if cls is nn.LSTM else first[0])
    place = int(reverse)
    ending = "_l0_reverse" if reverse else "_l0"
    w = {name.removesuffix(ending): p for name, p in layer.named_parameters() if name.endswith(ending)}
    given = {
        "gates": nn.functional.linear(x, w["weight_ih"], w.get("bias_ih")),
        "first": first[0][place],
        "weight": w["weight_hh"],
        "bias": w.get("bias_hh"),
        "time": batch_first,
        "reverse": reverse,
    }
    if cls is nn.LSTM:
        given |= {"cells": first[1][place], "projection": w.get("weight_hr")}
        torch.testing.assert_close(lstm_cells(**given), last[1][place])
    torch.testing.assert_close(states(**given), wanted.chunk(2, -1)[place])


class Read(nn.Module):
    """A linear layer on the states of a recurrent one."""

    def __init__(self, layer: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0])


def families(model: nn.Module, x: Tensor) -> dict[str, int]:
    return {family.name: family.size for family in find_units(model, x).removable}


def test_each_layer_and_direction_has_units_of_its_own():
    model = Read(nn.GRU(3, 4, 2, bidirectional=True), 8)
    ends = ("l0", "l0_reverse", "l1", "l1_reverse")
    assert families(model, torch.randn(5, 2, 3)) == {f"layer.weight_ih_{end}:0": 4 for end in ends}


def test_a_block_has_the_rows_of_all_gates_and_the_rows_of_a_projection():
    model, x = Read(nn.LSTM(3, 4, proj_size=2), 2), torch.randn(5, 2, 3)
    units = tl.Units(model, x)
    found = {
        (units.names[piece.tensor], piece.dim): piece.indices.tolist() for pieces in units.families for piece in pieces
    }
    gates = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]]
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    assert found == {(f"layer.{name}", 0): gates for name in names} | {("layer.weight_hr_l0", 0): [[0], [1]]}


def test_a_state_that_comes_from_outside_keeps_all_units():
    class Continued(Read):
        def forward(self, x: Tensor, first: Tensor) -> Tensor:
            return self.head(self.layer(x, first)[0])

    model, x = Continued(nn.GRU(3, 4), 4), (torch.randn(5, 2, 3), torch.randn(1, 2, 4))
    assert not find_units(model, x).removable
    _, found = tl.compact(model, x, return_report=True)
    assert "it is a dimension of an input" in found.families[0].why


def test_a_cell_takes_its_part_of_all_products():
    steps, batch, cells = 5, 2, 4
    model, x = Read(nn.LSTM(3, cells), cells), torch.randn(steps, batch, 3)
    units = find_units(model, x)
    products = 4 * cells * 3 + 4 * cells * cells + cells * 2
    assert flops_of_units(units.structure)[units.removable[0].axis] == 2 * steps * batch * products / cells


def test_the_last_cells_cost_nothing_more():
    class Both(Read):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            states, (_, cells) = self.layer(x)
            return self.head(states), cells.sum(-1)

    layer, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    costs = []
    for model in (Read(layer, 4), Both(layer, 4)):
        units = find_units(model, x)
        costs.append(flops_of_units(units.structure)[units.removable[0].axis])
    assert costs[0] == costs[1]


def test_a_packed_sequence_is_refused_with_a_way_out():
    class Packed(Read):
        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
            if lengths is None:
                return self.head(self.layer(x)[1][-1])
            return self.head(self.layer(nn.utils.rnn.pack_padded_sequence(x, lengths))[1][-1])

    model, x = Packed(nn.GRU(3, 4), 4), torch.randn(5, 2, 3)
    with pytest.raises(ValueError, match=r"cannot be exported.*packed sequence.*where no lengths are given"):
        find_units(model, (x, torch.tensor([5, 3])))
    assert families(model, x) == {"layer.weight_ih_l0:0": 4}


def test_a_batch_whose_size_depends_on_the_inputs_keeps_the_units_of_the_layer():
    class Chosen(Read):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(x[x[:, 0, 0] > 0])[0].sum((0, 1)))

    model, x = Chosen(nn.GRU(3, 4, batch_first=True), 4), torch.randn(6, 5, 3)
    (layer,) = [family for family in find_units(model, x).families if family.size == 4]
    assert layer.pins == ("an argument of zeros depends on the inputs",)
