"""The number of operations of a model before and after a removal."""

from __future__ import annotations

import math

from torchlasso.compaction.removal import Removal
from torchlasso.graph.operators import Call, Shaped, all_dims, arguments, name_of, rule_of
from torchlasso.graph.rules.contractions import Affine, Attention, Matmul
from torchlasso.graph.rules.recurrent import Recurrence
from torchlasso.graph.structure import Structure

COUNTED = (Affine, Attention, Matmul, Recurrence)


def multiplications(structure: Structure, removal: Removal) -> int:
    """Count the multiplications of layers, matrix products and attentions in one run after a removal."""
    total, size = 0, removal.size
    for node in structure.trace.nodes:
        rule = rule_of(node.target) if node.op == "call_function" else None
        if not isinstance(rule, COUNTED) or not isinstance(structure.shapes[node], Shaped):
            continue
        args = arguments(node)
        out = [size(dim) for dim in all_dims(structure.shapes[node])]
        if isinstance(rule, Affine):
            weight = [size(dim) for dim in all_dims(structure.shapes[args["weight"]])]
            ((_, consumed),) = rule.reads(Call(name_of(node.target), args, None))
            # per element of the outputs, or of the inputs of a transposed convolution, whose weight has them first
            side = out if consumed else [size(dim) for dim in all_dims(structure.shapes[args["input"]])]
            total += math.prod(side) * math.prod(weight[1:])
        elif isinstance(rule, Attention):
            query, key = (all_dims(structure.shapes[args[name]]) for name in ("query", "key"))
            total += (math.prod(map(size, query)) + math.prod(out)) * size(key[-2])
        elif isinstance(rule, Recurrence):
            weights = [args[name] for name in ("weight", "projection") if args.get(name) is not None]
            sizes = [math.prod(map(size, all_dims(structure.shapes[w]))) for w in weights]
            total += 0 if rule.last else math.prod(out[:2]) * sum(sizes)  # the last cells come with the states
        else:
            factors = [all_dims(structure.shapes[x]) for x in node.all_input_nodes]
            total += math.prod(out) * size(factors[-2][-1])
    return total
