"""Recurrences: one layer of an RNN, LSTM or GRU in one direction, as functions of the products with its inputs.

They compute what torch's recurrent layers do, step by step. An ``LSTM`` with several layers and directions is one
operator in the graph of a model; in its place, the graph that is followed has a linear layer and one of these functions
for each of its layers and directions (:mod:`torchlasso.graph.recurrent_layers`).

All of them take

- ``gates``: the products with the inputs, W_ih x + b_ih for each step, (steps, batch, gates·cells); the gates are in
  the order of torch's layers.
- ``first``: the state before the first step, (batch, states).
- ``weight``, ``bias``: W_hh, (gates·cells, states), and b_hh.
- ``time``: the dimension of the steps in ``gates``, 0 or 1.
- ``reverse``: whether the last step comes first.

and return the states after each step, (steps, batch, states), with the steps in the dimension ``time``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

Transition = Callable[[Tensor, Tensor], Tensor]  # the gates of a step and the state before it ↦ the state after it


def tanh_states(
    *, gates: Tensor, first: Tensor, weight: Tensor, bias: Tensor | None, time: int, reverse: bool
) -> Tensor:
    """Return the states of an RNN, h ← tanh(x + W h + b)."""
    return _stepped(lambda x, h: (x + linear(h, weight, bias)).tanh(), gates, first, time, reverse)


def relu_states(
    *, gates: Tensor, first: Tensor, weight: Tensor, bias: Tensor | None, time: int, reverse: bool
) -> Tensor:
    """Return the states of an RNN, h ← max(0, x + W h + b)."""
    return _stepped(lambda x, h: (x + linear(h, weight, bias)).relu(), gates, first, time, reverse)


def gru_states(
    *, gates: Tensor, first: Tensor, weight: Tensor, bias: Tensor | None, time: int, reverse: bool
) -> Tensor:
    """Return the states of a GRU, h ← (1 − z)·n + z·h with n = tanh(x_n + r·(W_n h + b_n))."""

    def step(x: Tensor, h: Tensor) -> Tensor:
        (x_r, x_z, x_n), (h_r, h_z, h_n) = x.chunk(3, -1), linear(h, weight, bias).chunk(3, -1)
        z = (x_z + h_z).sigmoid()
        return (1 - z) * (x_n + (x_r + h_r).sigmoid() * h_n).tanh() + z * h

    return _stepped(step, gates, first, time, reverse)


def lstm_states(
    *,
    gates: Tensor,
    first: Tensor,
    cells: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    time: int,
    reverse: bool,
) -> Tensor:
    """Return the states of an LSTM, c ← f·c + i·tanh(g) and h ← o·tanh(c), or its projection W_hr h.

    Args:
        gates, first, weight, bias, time, reverse: see above.
        cells: the cells before the first step, (batch, cells).
        projection: W_hr, (states, cells), if there is one.
    """
    return _lstm(gates, first, cells, weight, bias, projection, time, reverse)[0]


def lstm_cells(
    *,
    gates: Tensor,
    first: Tensor,
    cells: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    time: int,
    reverse: bool,
) -> Tensor:
    """Return the cells of an LSTM after its last step, (batch, cells); see :func:`lstm_states`."""
    return _lstm(gates, first, cells, weight, bias, projection, time, reverse)[1]


def _lstm(
    gates: Tensor,
    first: Tensor,
    cells: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    projection: Tensor | None,
    time: int,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    c = cells

    def step(x: Tensor, h: Tensor) -> Tensor:
        nonlocal c
        i, f, g, o = (x + linear(h, weight, bias)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return h if projection is None else linear(h, projection)

    return _stepped(step, gates, first, time, reverse), c


def _stepped(step: Transition, gates: Tensor, first: Tensor, time: int, reverse: bool) -> Tensor:
    state, found = first, list[Tensor]()
    for x in reversed(gates.unbind(time)) if reverse else gates.unbind(time):
        state = step(x, state)
        found.append(state)
    return torch.stack(found[::-1] if reverse else found, time)
