"""Recurrent layers in the graph of a model, divided into what each layer and direction computes.

``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` are one operator each, however many layers and directions they have. Their units
are easier to follow in

    layer 1, forwards:    linear(x, W_ih, b_ih) → a recurrence
    layer 1, backwards:   linear(x, W_ih, b_ih) → a recurrence
    layer 2, forwards:    linear(both, W_ih, b_ih) → …

which computes the same. The last states of all layers and directions are one tensor, h_n; where only parts of it are
used, such as ``h_n[-1]``, they are taken from the states of that layer, so that layers stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from torchlasso.graph.operators import arguments
from torchlasso.graph.recurrence import gru_states, lstm_cells, lstm_states, relu_states, tanh_states

aten: Any = torch.ops.aten
STATES: dict[Any, Callable[..., Tensor]] = {
    aten.lstm.input: lstm_states,
    aten.gru.input: gru_states,
    aten.rnn_tanh.input: tanh_states,
    aten.rnn_relu.input: relu_states,
}
EQUAL = (aten.zeros.default, aten.ones.default, aten.full.default)  # tensors whose parts can be made separately

StateWeights = list[fx.Node]  # the weights W_hh of a layer: all keep equally many units


def divide_recurrent_layers_(graph: fx.Graph) -> list[StateWeights]:
    """Replace the recurrent layers of a graph, and return the weights W_hh of each."""
    stacks: dict[fx.Node, list[fx.Node]] = {}
    found = []
    for node in list(graph.nodes):
        if node.target in STATES:
            with graph.inserting_before(node):
                found.append(_Layers(graph, node, stacks).replace())
    # a state that nothing reads stays: its sizes are those of its layer
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.target in STATES.values())
    return found


@dataclass
class _Layers:
    """One recurrent module in a graph.

    Attributes:
        node: the operator.
        stacks: the tensors in the graph that put rows one after the other, and their rows; entries are added.
    """

    graph: fx.Graph
    node: fx.Node
    stacks: dict[fx.Node, list[fx.Node]]
    weights: StateWeights = field(default_factory=list)

    def replace(self) -> StateWeights:
        args = arguments(self.node)
        directions = 1 + args["bidirectional"]
        given = args["hx"] if isinstance(args["hx"], list | tuple) else [args["hx"]]
        each = len(args["params"]) // (args["num_layers"] * directions)
        x, ends, time = args["input"], [list[fx.Node]() for _ in given], int(args["batch_first"])
        for layer in range(args["num_layers"]):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                params = args["params"][place * each : (place + 1) * each]
                states, last = self._states(x, [self._row(hx, place) for hx in given], params, direction == 1, time)
                outputs.append(states)
                for end, row in zip(ends, last, strict=True):
                    end.append(row)
            x = outputs[0] if directions == 1 else self._call(aten.cat.default, (outputs, 2), _joined(outputs))
        for user in list(self.node.users):
            number: Any = user.args[1]
            if number == 0:
                user.replace_all_uses_with(x)
            else:
                self._use_rows(user, ends[number - 1])
            self.graph.erase_node(user)
        self.graph.erase_node(self.node)
        return self.weights

    def _states(
        self, x: fx.Node, given: list[fx.Node], params: Sequence[fx.Node], reverse: bool, time: int
    ) -> tuple[fx.Node, list[fx.Node]]:
        """Add one layer in one direction; return its states, and the last one, with the last cells of an LSTM."""
        biased = bool(arguments(self.node)["has_biases"])
        w_ih, w_hh, *others = params
        b_ih, b_hh = others[:2] if biased else (None, None)
        w_hr = others[2 * biased] if len(others) > 2 * biased else None
        shape = _shape(x)
        gates = self._call(aten.linear.default, (x, w_ih, b_ih), (*shape[:2], _shape(w_ih)[0]))
        inputs = {"gates": gates, "first": given[0], "weight": w_hh, "bias": b_hh, "time": time, "reverse": reverse}
        if len(given) > 1:
            inputs |= {"cells": given[1], "projection": w_hr}
        states = self._call(STATES[self.node.target], inputs, (*shape[:2], _shape(given[0])[1]))
        last = [self._call(aten.select.int, (states, time, 0 if reverse else -1), _shape(given[0]))]
        if len(given) > 1:
            last.append(self._call(lstm_cells, inputs, _shape(given[1])))
        self.weights.append(w_hh)
        return states, last

    def _row(self, node: fx.Node, place: int) -> fx.Node:
        """Return a row of a tensor, from where it comes if that is known."""
        if node in self.stacks:
            return self.stacks[node][place]
        shape = _shape(node)[1:]
        if node.target in EQUAL:
            given: Any = node.args
            return self._call(node.target, (given[0][1:], *given[1:]), shape, dict(node.kwargs))
        return self._call(aten.select.int, (node, 0, place), shape)

    def _use_rows(self, node: fx.Node, rows: list[fx.Node]) -> None:
        """Put rows in the place of a tensor that consists of them; where it is used as a whole, a stack of them."""
        for user in list(node.users):
            given: Any = user.args
            if user.target is aten.select.int and given[1] in (0, -3):
                user.replace_all_uses_with(rows[given[2]])
        with self.graph.inserting_before(node):
            whole = self._call(aten.stack.default, (rows,), (len(rows), *_shape(rows[0])))
        self.stacks[whole] = rows
        node.replace_all_uses_with(whole)

    def _call(
        self, target: Any, given: tuple[Any, ...] | dict[str, Any], shape: Sequence[int], more: Any = None
    ) -> fx.Node:
        args, kwargs = ((), given) if isinstance(given, dict) else (given, more or {})
        made = self.graph.call_function(target, args, kwargs)
        made.meta = {key: value for key, value in self.node.meta.items() if key == "nn_module_stack"}
        made.meta["val"] = self.node.meta["val"][0].new_empty(tuple(shape))
        return made


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _joined(outputs: list[fx.Node]) -> tuple[int, ...]:
    first = _shape(outputs[0])
    return (*first[:2], sum(_shape(states)[2] for states in outputs))
