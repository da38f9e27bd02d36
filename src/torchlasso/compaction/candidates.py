"""The numbers of a model's modules that may have to change with its sizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from torchlasso._core.kept import Key, kept
from torchlasso.compaction.attributes import Own, dims_of, module_of
from torchlasso.compaction.numbers import set_numbers_
from torchlasso.compaction.removal import Removal
from torchlasso.graph.structure import Structure

MOST_VALUES = 3

Place = tuple[str, tuple[Key, ...]]  # the path of a module, and the keys that lead from it to a number
Reads = dict[Place, set[str]]  # the modules in whose forward passes a number is read
Kind = tuple[type[nn.Module], tuple[Key, ...], bool]


@dataclass(frozen=True)
class Choice:
    """A number of a module that may have to change.

    Attributes:
        place: where it is.
        kind: choices of one kind are made alike: those of one class and name, where the size changes in all places, or
            only in some.
        values: what it may become, the likeliest first.
        read: the modules that read it.
    """

    place: Place
    kind: Kind
    values: tuple[int, ...]
    read: frozenset[str]


Assignment = list[tuple[Place, int]]


def changed_sizes(structure: Structure, removal: Removal) -> dict[str, dict[int, dict[int, None]]]:
    """Return the sizes in the forward pass of each module, and what they become where they occur."""
    seen: dict[str, dict[int, dict[int, None]]] = {}
    for node in structure.trace.nodes:
        if node.op == "call_function":
            here = seen.setdefault(module_of(node), {})
            for dim in itertools.chain(*(dims_of(structure, x) for x in (*node.all_input_nodes, node))):
                here.setdefault(dim.size, {})[removal.size(dim)] = None
    return seen


def candidates(model: nn.Module, structure: Structure, removal: Removal, reads: Reads, own: Own) -> list[Choice]:
    """Return the numbers that a forward pass reads and that are sizes which change.

    Args:
        model: of the full size.
        structure, removal: of it.
        reads: which numbers are read, and where.
        own: those that follow from tensors.
    """
    seen = changed_sizes(structure, removal)
    everywhere = _merged(seen.values())
    found, shared = [], set[int]()
    for path, module in model.named_modules():
        for keys, number in kept(module, shared):
            read = reads.get((path, keys), set())
            if type(number) is not int or not read or (module, keys[0]) in own:
                continue
            near = _merged(seen.get(other, {}) for other in read).get(number, {})
            after = near if near.keys() - {number} else everywhere.get(number, {})
            values = tuple(size for size in after if size != number)[:MOST_VALUES]
            if values:
                kind = (type(module), keys, number in after)
                found.append(Choice((path, keys), kind, values, frozenset(read)))
    return found


def _merged(several: Iterable[dict[int, dict[int, None]]]) -> dict[int, dict[int, None]]:
    found: dict[int, dict[int, None]] = {}
    for sizes in several:
        for size, after in sizes.items():
            found.setdefault(size, {}).update(after)
    return found


def assign_(model: nn.Module, assignment: Assignment) -> Callable[[], None]:
    """Write numbers into a model's modules; what holds them and may be in use elsewhere is copied.

    The result takes it back.
    """
    return set_numbers_(model, [(model.get_submodule(path), keys, value) for (path, keys), value in assignment])
