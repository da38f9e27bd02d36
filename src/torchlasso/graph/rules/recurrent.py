"""Recurrences over the steps of a sequence: a unit is a cell of an RNN, LSTM or GRU, with its rows of all gates.

A unit is zero at every step if it starts at zero and its candidate, tanh(…) or max(0, …), stays zero: its other gates
only scale. In a chain of units, one depends on the inputs if one that it reads does. Steps are not told apart: a unit
that depends on the inputs at one step counts as dependent at all.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torchlasso.graph.axes import Axis, concatenated, pin
from torchlasso.graph.operators import Call, OperatorRule, Reach, Shaped, rule
from torchlasso.graph.unification import unify


class _Spread(torch.autograd.Function):
    """The units that are marked, and those that read a marked one by the edges (to, from); backwards, against them."""

    @staticmethod
    def forward(ctx: Any, marked: Tensor, edges: Tensor) -> Tensor:
        ctx.save_for_backward(edges)
        return _spread(marked, edges)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (edges,) = ctx.saved_tensors
        return _Spread.apply(grads[0], edges.T), None  # type: ignore[no-untyped-call]


def _spread(marked: Tensor, edges: Tensor) -> Tensor:
    found, more = torch.zeros_like(marked), (marked > 0).float()
    while not torch.equal(found, more):
        found = more
        more = ((found + found @ edges.T) > 0).float()
    return found


class Recurrence(OperatorRule):
    """One layer in one direction: :mod:`torchlasso.graph.recurrence`.

    Attributes:
        gates: the number of gates.
        candidate: the gate without which a unit that is zero stays zero.
        last: whether the result has the last step only.
    """

    adds_up = True
    gates: ClassVar[int]
    candidate: ClassVar[int]
    last: ClassVar[bool] = False

    def shape(self, call: Call[Shaped]) -> Any:
        steps, first, weight = call["gates"].dims, call["first"].dims, call["weight"].dims
        reason, time = f"{call.name} needs equal sizes", call["time"]
        pin(steps[time], f"{call.name} runs along it")
        cells: Any = Axis(weight[0].size // self.gates)
        unify(weight[0], concatenated([cells] * self.gates), reason)
        unify(weight[0], steps[2], reason)
        unify(first[0], steps[1 - time], reason)
        unify(first[1], weight[1], reason)
        if call.get("bias") is not None:
            unify(weight[0], call["bias"].dims[0], reason)
        if call.get("projection") is None:
            unify(cells, weight[1], reason)
        else:
            for dim, other in zip(call["projection"].dims, (weight[1], cells), strict=True):
                unify(dim, other, reason)
        if call.get("cells") is not None:
            for dim, other in zip(call["cells"].dims, (first[0], cells), strict=True):
                unify(dim, other, reason)
        return [first[0], cells] if self.last else [*steps[:2], weight[1]]

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        weights = [call[name] for name in ("weight", "projection") if call.get(name) is not None]
        return [(place, 1) for place, tensor in enumerate(call.tensors) if any(tensor is weight for weight in weights)]

    def reach(self, call: Call[Reach]) -> Any:
        gates, first, time = call["gates"], call["first"], call["time"]
        began = call.get("cells") or first  # the cells before the first step
        reads = self._by_gate(call["weight"].nonzero, 0)  # (gates, cells, states)
        every = torch.eye(reads.shape[1], dtype=reads.dtype)
        shows = call["projection"].nonzero if call.get("projection") else every  # (states, cells)
        edges = [(some @ shows > 0).float() for some in (reads.sum(0), reads[self.candidate])]  # (cells, cells)

        bias = self._by_gate(call["bias"].nonzero, 0)[self.candidate] if call.get("bias") else 0
        candidates = self._by_gate(gates.nonzero.sum((0, 1)), 0)[self.candidate] + bias
        starts = first.nonzero.sum(0) @ reads[self.candidate].T + began.nonzero.sum(0)
        varies = _spread((candidates + starts).detach(), edges[1])  # (cells,): 0 where a unit is zero at every step

        depends = self._by_gate(gates.depends.sum(time), 1).sum(1) + began.depends + first.depends @ reads.sum(0).T
        weights = [call[name] for name in ("weight", "bias", "projection") if call.get(name)]
        depends = depends + sum(weight.depends.sum() for weight in weights)
        edge = edges[0] * varies[:, None] * varies
        found: Tensor = _Spread.apply(depends * varies, edge)  # type: ignore[no-untyped-call] # (batch, cells)
        if self.last:
            return found
        return (found @ shows.T).unsqueeze(time).expand(call.value.shape)

    def _by_gate(self, x: Tensor, dim: int) -> Tensor:
        found: Tensor = x.unflatten(dim, (self.gates, -1))  # type: ignore[no-untyped-call]
        return found


@rule("tanh_states", "relu_states")
class ElmanStates(Recurrence):
    """The states of an RNN."""

    gates, candidate = 1, 0


@rule("gru_states")
class GatedStates(Recurrence):
    """The states of a GRU: gates r, z, n."""

    gates, candidate = 3, 2


@rule("lstm_states")
class LongShortStates(Recurrence):
    """The states of an LSTM: gates i, f, g, o."""

    gates, candidate = 4, 2


@rule("lstm_cells")
class LastCells(LongShortStates):
    """The cells of an LSTM after its last step."""

    last = True
