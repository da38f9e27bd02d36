"""The number of operations of a model before and after a removal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import fx

from torchlasso.compaction.removal import Removal
from torchlasso.graph.axes import Dim
from torchlasso.graph.operators import Call, Shaped, all_dims, arguments, name_of, rule_of
from torchlasso.graph.rules.contractions import Affine, Attention, Matmul
from torchlasso.graph.rules.recurrent import Recurrence
from torchlasso.graph.structure import Structure

Summand = list[Dim]  # a number of multiplications: the product of these sizes


def multiplications(structure: Structure, removal: Removal) -> int:
    """Count the multiplications of layers, matrix products and attentions in one run after a removal."""
    return count([term for node in structure.trace.nodes for term in _terms(structure, node)], removal)


def count(terms: Iterable[Summand], removal: Removal) -> int:
    """Return the sum of terms after a removal."""
    return sum(math.prod(map(removal.size, term)) for term in terms)


def products(structure: Structure) -> list[Summand]:
    """Return the multiplications of products of two activations, such as those of attention."""
    names, fixed = structure.trace.names, structure.trace.fixed
    activations, terms = set[fx.Node](), list[Summand]()
    for node in structure.trace.nodes:
        if node.op == "placeholder":
            activations |= {node} - names.keys() - fixed
        elif not activations.isdisjoint(node.all_input_nodes):
            activations.add(node)
            if activations.issuperset(_factors(node)):
                terms += _terms(structure, node)
    return terms


def _factors(node: fx.Node) -> Sequence[fx.Node | None]:
    """Return the values that are multiplied in a matrix product or attention; [None] for other operators."""
    rule = rule_of(node.target) if node.op == "call_function" else None
    if isinstance(rule, Attention):
        return [arguments(node)[name] for name in ("query", "key", "value")]
    if isinstance(rule, Matmul):
        return [x for x in arguments(node).values() if isinstance(x, fx.Node)][-2:]
    return [None]


def _terms(structure: Structure, node: fx.Node) -> list[Summand]:
    """Return the multiplications of an operator, as a sum of terms."""
    rule = rule_of(node.target) if node.op == "call_function" else None
    if rule is None or not isinstance(structure.shapes[node], Shaped):
        return []
    args, out = arguments(node), all_dims(structure.shapes[node])

    def dims(value: Any) -> list[Dim]:
        return all_dims(structure.shapes[value])

    if isinstance(rule, Affine):
        ((_, consumed),) = rule.reads(Call(name_of(node.target), args, None))
        # per element of the outputs, or of the inputs of a transposed convolution, whose weight has them first
        return [[*(out if consumed else dims(args["input"])), *dims(args["weight"])[1:]]]
    if isinstance(rule, Attention):
        length = dims(args["key"])[-2]
        return [[*dims(args["query"]), length], [*out, length]]
    if isinstance(rule, Recurrence):
        weights = [args[name] for name in ("weight", "projection") if args.get(name) is not None]
        return [] if rule.last else [[*out[:2], *dims(w)] for w in weights]  # the last cells come with the states
    if isinstance(rule, Matmul):
        return [[*out, dims(_factors(node)[0])[-1]]]
    return []
