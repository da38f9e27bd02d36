"""Candidates: integers in attributes of modules that may be sizes, and so may have to change."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from torchlasso._core.kept import Key, kept
from torchlasso.compaction.layer_sizes import DerivedSizes, dims_of, module_of
from torchlasso.compaction.numbers import set_numbers_
from torchlasso.compaction.removal import Removal
from torchlasso.graph.structure import Structure

MOST_VALUES = 3

Place = tuple[str, tuple[Key, ...]]  # the path of a module, and the keys from the module to the integer
Reads = dict[Place, set[str]]  # the modules whose forward passes read an integer
Kind = tuple[type[nn.Module], tuple[Key, ...], bool]


@dataclass(frozen=True)
class Candidate:
    """An integer in an attribute of a module that may have to change.

    Attributes:
        place: the module and the attribute.
        kind: candidates of one kind change together: they have the same class and attribute name, and the size that
            they equal changes everywhere for all of them, or only in some places for all of them.
        values: the possible new values, likeliest first.
        read: the modules that read the integer.
    """

    place: Place
    kind: Kind
    values: tuple[int, ...]
    read: frozenset[str]


Assignment = list[tuple[Place, int]]


def changed_sizes(structure: Structure, removal: Removal) -> dict[str, dict[int, dict[int, None]]]:
    """Return the sizes in the forward pass of each module, and the new sizes at the places where they occur."""
    seen: dict[str, dict[int, dict[int, None]]] = {}
    for node in structure.trace.nodes:
        if node.op == "call_function":
            here = seen.setdefault(module_of(node), {})
            for dim in itertools.chain(*(dims_of(structure, x) for x in (*node.all_input_nodes, node))):
                here.setdefault(dim.size, {})[removal.size(dim)] = None
    return seen


def find_candidates(
    model: nn.Module, structure: Structure, removal: Removal, reads: Reads, derived: DerivedSizes
) -> list[Candidate]:
    """Return the integers that a forward pass reads and that equal a size which changes.

    Args:
        model: the model of the full size.
        structure, removal: its structure, and the planned removal.
        reads: the integers that are read, and the modules that read them.
        derived: the sizes that follow from tensors; they are not candidates.
    """
    seen = changed_sizes(structure, removal)
    everywhere = _merged(seen.values())
    found, shared = [], set[int]()
    for path, module in model.named_modules():
        for keys, number in kept(module, shared):
            read = reads.get((path, keys), set())
            if type(number) is not int or not read or (module, keys[0]) in derived:
                continue
            near = _merged(seen.get(other, {}) for other in read).get(number, {})
            after = near if near.keys() - {number} else everywhere.get(number, {})
            values = tuple(size for size in after if size != number)[:MOST_VALUES]
            if values:
                kind = (type(module), keys, number in after)
                found.append(Candidate((path, keys), kind, values, frozenset(read)))
    return found


def _merged(several: Iterable[dict[int, dict[int, None]]]) -> dict[int, dict[int, None]]:
    found: dict[int, dict[int, None]] = {}
    for sizes in several:
        for size, after in sizes.items():
            found.setdefault(size, {}).update(after)
    return found


def assign_(model: nn.Module, assignment: Assignment) -> Callable[[], None]:
    """Write new sizes into attributes of modules, and return the function that undoes it.

    Containers and objects that hold them are copied first, since other code may use them.
    """
    return set_numbers_(model, [(model.get_submodule(path), keys, value) for (path, keys), value in assignment])
