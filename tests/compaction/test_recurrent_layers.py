"""Units of recurrent layers: which can be removed, and that the outputs stay the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import torchlasso as tl
from tests.support.compaction import Function, compacted, ready, why
from tests.support.pairwise import each_value, pairwise
from torchlasso.export import to_onnx

pytestmark = [
    pytest.mark.usefixtures("seeded"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),  # torch says so
]

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}
CELLS = 6
EQUAL = "parts of one split or recurrent layer keep equally many units"
CONSTANT = "other units of the layer read its constant in the next step"


def sequences(features: int = 3) -> Tensor:
    return torch.randn(4, 3, features, dtype=torch.float64)


def zero_units(model: nn.Module, x: Any, share: float = 1 / 3) -> None:
    """Zero the first blocks of each family."""
    units, parameters = tl.Units(model, x), dict(model.named_parameters())
    with torch.no_grad():
        for pieces in units.families:
            for piece in pieces:
                first = piece.indices[: round(share * len(piece.indices))]
                parameters[units.names[piece.tensor]].index_fill_(piece.dim, first.flatten(), 0.0)


# The parts of the results that are used

USES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all states": lambda states, last: states,
    "the last state": lambda states, last: states[:, -1],
    "the mean": lambda states, last: states.mean(1),
    "the last states of both directions": lambda states, last: torch.cat([last[-2], last[-1]], -1),
    "the last state of one direction": lambda states, last: last[-1],
    "attention": lambda states, last: (states.sum(-1).softmax(1)[..., None] * states).sum(1),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "one layer": {},
    "two layers": {"num_layers": 2, "dropout": 0.5},
    "both directions": {"num_layers": 2, "bidirectional": True},
    "no bias": {"bias": False, "bidirectional": True},
    "projection": {"num_layers": 2, "proj_size": 3, "bidirectional": True},
}


def last_of(x: Any) -> Any:
    return x[0] if isinstance(x, tuple) else x


def used(cls: type[nn.RNNBase], option: str, use: str) -> nn.Module:
    """A recurrent layer between two linear ones."""
    options = OPTIONS[option]
    directions = 1 + options.get("bidirectional", False)
    width = options.get("proj_size", CELLS) * (1 if "one" in use else directions)

    def forward(self: Any, x: Tensor) -> Tensor:
        states, last = self.layer(self.embed(x))
        return self.head(USES[use](states, last_of(last)))

    layer = cls(4, CELLS, batch_first=True, **options)
    return Function(forward, embed=nn.Linear(3, 4), layer=layer, head=nn.Linear(width, 2))


def fits(cls: type[nn.RNNBase], option: str, use: str) -> bool:
    both = OPTIONS[option].get("bidirectional", False)
    return (both or "both" not in use) and (cls is nn.LSTM or option != "projection")


@pytest.mark.slow
@pairwise(fits, cls=GATES, option=OPTIONS, use=USES)
def test_a_third_of_the_units_goes(cls: type[nn.RNNBase], option: str, use: str, tmp_path: Path):
    model, x = ready(used(cls, option, use)), sequences()
    zero_units(model, x)
    small, found = compacted(model.eval(), x, modes=(False,))
    assert small.layer.hidden_size == CELLS - 2
    assert small.layer.input_size == small.embed.out_features == 3
    assert small.layer.proj_size == (2 if option == "projection" else 0)
    whys = {reason for family in found.families if family.before != 2 for reason in family.why}
    assert whys <= ({EQUAL} if use == "the last state of one direction" else set())  # the other is not read
    assert small.layer.weight_hh_l0.shape[0] == GATES[cls] * (CELLS - 2)
    tl.save(small, tmp_path / "small.safetensors")
    other = used(cls, option, use).double().eval()
    tl.load(tmp_path / "small.safetensors", into=other)
    assert str(other.layer) == str(small.layer)
    assert torch.equal(other(x), small(x))


# Units that are zero, constant or unread


def read(cls: type[nn.RNNBase], first: float | None = None) -> nn.Module:
    """A recurrent layer that starts at zero or at another number, and a linear layer on all states."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if first is None:
            return self.head(self.layer(x)[0])
        start = torch.full((1, len(x), self.layer.hidden_size), first, dtype=x.dtype)
        return self.head(self.layer(x, (start, start) if cls is nn.LSTM else start)[0])

    return ready(Function(forward, layer=cls(3, CELLS, batch_first=True), head=nn.Linear(CELLS, 2)))


@torch.no_grad()
def kill(layer: nn.RNNBase, *units: int, biases: bool = True, only_candidate: bool = False) -> None:
    """Zero the rows of units, of all gates or of the candidate's."""
    gates = GATES[type(layer)]
    numbers = [min(2, gates - 1)] if only_candidate else range(gates)
    rows = torch.tensor([gate * CELLS + unit for gate in numbers for unit in units])
    for name, p in layer.named_parameters():
        if biases or not name.startswith("bias"):
            p.index_fill_(0, rows, 0.0)


@torch.no_grad()
def unread(model: Any, *units: int) -> None:
    for w in (model.layer.weight_hh_l0, model.head.weight):
        w.index_fill_(1, torch.tensor(units), 0.0)


@each_value(cls=GATES)
def test_a_unit_that_stays_zero_goes(cls: type[nn.RNNBase]):
    model = read(cls)
    kill(model.layer, 1, 3)
    model.layer.weight_hh_l0.data[3, 1] = 1.0  # it reads a unit that stays zero
    assert compacted(model, sequences())[0].layer.hidden_size == CELLS - 2


@each_value(cls=GATES)
def test_a_unit_whose_candidate_stays_zero_goes(cls: type[nn.RNNBase]):
    model = read(cls)
    kill(model.layer, 1, 3, only_candidate=True)
    assert compacted(model, sequences())[0].layer.hidden_size == CELLS - 2


@each_value(cls=GATES)
def test_a_candidate_that_reads_another_unit_keeps_its_unit(cls: type[nn.RNNBase]):
    model = read(cls)
    kill(model.layer, 1)
    model.layer.weight_hh_l0.data[CELLS * min(2, GATES[cls] - 1) + 1, 0] = 1.0
    assert compacted(model, sequences())[0].layer.hidden_size == CELLS


@each_value(cls=GATES)
def test_a_unit_with_biases_changes_from_step_to_step_and_stays(cls: type[nn.RNNBase]):
    model = read(cls)
    kill(model.layer, 1, 3)
    model.layer.bias_ih_l0.data[1::CELLS] = 1.0
    small, found = compacted(model, sequences())
    assert small.layer.hidden_size == CELLS - 1
    assert why(found, CELLS) == CONSTANT


def test_a_constant_that_only_the_next_layer_reads_is_folded_if_it_is_the_same_at_each_step():
    for cls, left in ((nn.RNN, CELLS - 1), (nn.LSTM, CELLS), (nn.GRU, CELLS)):
        model = read(cls)
        kill(model.layer, 1, biases=False)
        model.layer.weight_hh_l0.data[:, 1] = 0.0
        small, found = compacted(model, sequences())
        assert small.layer.hidden_size == left
        assert why(found, CELLS) == (
            "" if left < CELLS else "its constant does not have the same effect everywhere in head"
        )


@each_value(cls=GATES)
def test_units_that_only_read_one_another_go(cls: type[nn.RNNBase]):
    model = read(cls)
    unread(model, 1, 3)
    model.layer.weight_hh_l0.data[1::CELLS, 1] = 1.0
    model.layer.weight_hh_l0.data[1::CELLS, 3] = 1.0
    assert compacted(model, sequences())[0].layer.hidden_size == CELLS - 2


@each_value(cls=GATES, first=[0.0, 0.5])
def test_a_unit_that_starts_at_another_number_stays_if_it_is_read(cls: type[nn.RNNBase], first: float):
    model = read(cls, first)
    kill(model.layer, 1)
    small, found = compacted(model, sequences())
    assert small.layer.hidden_size == (CELLS if first else CELLS - 1)
    assert why(found, CELLS) == (CONSTANT if first else "")


@each_value(cls=GATES)
def test_a_unit_that_starts_at_another_number_goes_if_nothing_reads_it(cls: type[nn.RNNBase]):
    model = read(cls, 0.5)
    unread(model, 2)
    assert compacted(model, sequences())[0].layer.hidden_size == CELLS - 1


@each_value(cls=GATES)
def test_constants_of_the_inputs_are_folded_into_the_biases(cls: type[nn.RNNBase]):
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x).sigmoid())[0])

    layers = {"embed": nn.Linear(3, 4), "layer": cls(4, CELLS, bidirectional=True), "head": nn.Linear(2 * CELLS, 2)}
    model = ready(Function(forward, **layers))
    model.embed.weight.data[1] = 0.0
    small, _ = compacted(model, sequences())
    assert (small.embed.out_features, small.layer.input_size) == (3, 3)


# Layers that keep equally many units, and states that pass from one to another


@each_value(cls=GATES)
def test_another_default_type_changes_nothing(cls: type[nn.RNNBase]):
    torch.set_default_dtype(torch.float64)
    try:
        model = read(cls)
        kill(model.layer, 1, 3)
        unread(model, 1, 3)
        assert compacted(model, sequences().double())[0].layer.hidden_size == CELLS - 2
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_layers_and_directions_of_a_module_keep_equally_many_units():
    model, x = ready(used(nn.LSTM, "both directions", "all states")), sequences()
    kill(model.layer, 0, 1, 2)  # of all layers and directions
    for name, p in model.layer.named_parameters():
        if name.endswith("l1_reverse"):
            p.data.normal_()
    kill_one = [gate * CELLS for gate in range(4)]
    for name, p in model.layer.named_parameters():
        if name.endswith("l1_reverse"):
            p.data[kill_one] = 0.0
    small, found = compacted(model.eval(), x, modes=(False,))
    assert small.layer.hidden_size == CELLS - 1
    assert [family.why for family in found.families if family.before == CELLS] == [*[(EQUAL,)] * 3, ()]


class Translation(nn.Module):
    """A decoder that starts with the last states of an encoder."""

    def __init__(self, cls: type[nn.RNNBase], layers: int) -> None:
        super().__init__()
        self.encode, self.decode = cls(3, CELLS, layers), cls(2, CELLS, layers)
        self.head = nn.Linear(CELLS, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(self.decode(y, self.encode(x)[1])[0])


@pairwise(cls=GATES, layers=[1, 2])
def test_a_unit_goes_with_its_state_in_another_module(cls: type[nn.RNNBase], layers: int):
    model = ready(Translation(cls, layers)).eval()
    x = torch.randn(5, 4, 3, dtype=torch.float64), torch.randn(3, 4, 2, dtype=torch.float64)
    zero_units(model, x)
    small = tl.compact(model, x)
    assert small.encode.hidden_size == small.decode.hidden_size == CELLS - 2
    torch.testing.assert_close(small(*x), model(*x))


def test_a_learned_first_state_goes_with_its_unit():
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(self.layer(x, self.first.expand(-1, len(x), -1))[0])

    first = nn.Parameter(torch.randn(1, 1, CELLS))
    layers = {"layer": nn.GRU(3, CELLS, batch_first=True), "head": nn.Linear(CELLS, 2)}
    model, x = ready(Function(forward, first=first, **layers)), sequences()
    assert "first" in tl.Units(model, x).names
    zero_units(model, x)
    small, _ = compacted(model, x)
    assert small.first.shape == (1, 1, CELLS - 2)


@each_value(cls=[nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_in_a_loop_lose_their_units(cls: type[nn.RNNCellBase]):
    def forward(self: Any, x: Tensor) -> Tensor:
        state = None
        for step in range(3):
            state = self.cell(x[:, step], state)
        return self.head(last_of(state))

    model, x = ready(Function(forward, cell=cls(3, CELLS), head=nn.Linear(CELLS, 2))), sequences()
    zero_units(model, x)
    small, _ = compacted(model, x)
    assert (small.cell.hidden_size, small.cell.input_size) == (CELLS - 2, 3)


@each_value(way=["transposed", "slices", "cells"])
def test_last_states_that_are_used_in_other_ways_are_right(way: str):
    def forward(self: Any, x: Tensor) -> Tensor:
        _, (last, cells) = self.layer(x)
        if way == "transposed":
            return self.head(last.transpose(0, 1).reshape(len(x), -1))
        if way == "slices":
            return self.head(last[-2:].permute(1, 0, 2).flatten(1))
        return self.head(torch.cat([cells[-1], cells[0]], 1))

    layer = nn.LSTM(3, CELLS, 2 if way == "slices" else 1, batch_first=True, bidirectional=True)
    model, x = ready(Function(forward, layer=layer, head=nn.Linear(2 * CELLS, 2))), sequences()
    zero_units(model, x)
    assert compacted(model, x)[0].layer.hidden_size == CELLS - 2


# While a model trains


def test_a_trained_classifier_becomes_smaller_with_its_optimizer():
    def forward(self: Any, words: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(words))[0].mean(1))

    layers = {"embed": nn.Embedding(10, 4), "layer": nn.LSTM(4, 16, batch_first=True), "head": nn.Linear(16, 2)}
    model, words = Function(forward, **layers), torch.randint(0, 10, (128, 6))
    labels = ((words < 3).sum(1) > 1).long()
    units = tl.Units(model, words[:2], only="layer.*")
    optimizer = tl.ProxAdam(tl.param_groups(model, tl.L1(over=units), lam=5e-3), lr=0.02)
    control = tl.TargetCount(optimizer, units=4, steps=60)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(words), labels).backward()
        optimizer.step()
        control.step()
    before = model(words).detach()
    report = tl.shrink_(model, optimizer, words[:2], controllers=control)
    assert model.layer.hidden_size == 4
    assert report.removed == 12
    torch.testing.assert_close(model(words), before)
    for p in model.parameters():
        assert all(value.shape == p.shape for value in optimizer.state[p].values() if value.dim())
    optimizer.zero_grad()
    F.cross_entropy(model(words), labels).backward()
    optimizer.step()
    assert model.layer(torch.randn(2, 3, 4))[0].shape == (2, 3, 4)


@pytest.mark.slow
def test_a_compacted_layer_can_be_exported(tmp_path: Path):
    import onnxruntime

    model, x = used(nn.LSTM, "both directions", "all states").eval(), sequences().float()
    zero_units(model, x)
    small = tl.compact(model, x)
    to_onnx(small, x, tmp_path / "small.onnx")
    (given,) = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(None, {"input": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(given), model(x), atol=1e-5, rtol=1e-4)
