"""The numbers that modules keep of their own sizes, such as ``out_channels``, made true again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from torchlasso.compaction.removal import Removal
from torchlasso.control.live_channels import undisturbed
from torchlasso.graph.axes import Dim
from torchlasso.graph.operators import Shaped, rule_of
from torchlasso.graph.rules.contractions import Convolution
from torchlasso.graph.structure import Structure

MOST_TRIALS = 256


@dataclass(frozen=True)
class Use:
    """How many channels the first operator of a module reads and makes, by now."""

    channels_in: int
    channels_out: int


Numbers = Callable[[Any, Use | None], dict[str, Any]]


def _linear(module: nn.Linear, use: Use | None) -> dict[str, Any]:
    made, consumed = module.weight.shape
    return {"in_features": consumed, "out_features": made}


def _bilinear(module: nn.Bilinear, use: Use | None) -> dict[str, Any]:
    made, one, two = module.weight.shape
    return {"in1_features": one, "in2_features": two, "out_features": made}


def _convolution(module: _ConvNd, use: Use | None) -> dict[str, Any]:
    if use is None:
        return {}
    whole, part = module.weight.shape[:2]  # (out, in / groups), transposed (in, out / groups)
    other = use.channels_out if module.transposed else use.channels_in
    into, out = (whole, other) if module.transposed else (other, whole)
    return {"in_channels": into, "out_channels": out, "groups": other // part}


def _norm(module: _NormBase, use: Use | None) -> dict[str, Any]:
    return {"num_features": use.channels_in} if use else {}


def _group_norm(module: nn.GroupNorm, use: Use | None) -> dict[str, Any]:
    if use is None:
        return {}
    each = module.num_channels // module.num_groups  # a group goes as a whole
    return {"num_channels": use.channels_in, "num_groups": use.channels_in // each}


def _embedding(module: nn.Embedding, use: Use | None) -> dict[str, Any]:
    return {"embedding_dim": module.weight.shape[1]}


def _prelu(module: nn.PReLU, use: Use | None) -> dict[str, Any]:
    return {"num_parameters": len(module.weight)}


OWN: dict[type[nn.Module], Numbers] = {
    nn.Linear: _linear,
    nn.Bilinear: _bilinear,
    _ConvNd: _convolution,
    _NormBase: _norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}


def own_numbers(module: nn.Module) -> Numbers | None:
    """How the numbers of a module of torch follow from its tensors and what it reads; None for other modules."""
    return next((OWN[cls] for cls in type(module).__mro__ if cls in OWN), None)


@dataclass(frozen=True)
class Choice:
    """A number of a module that is not torch's, and that may have to change.

    Attributes:
        path, name: of the module and the attribute.
        place: in a list or tuple of numbers, which of them.
        kind: choices of one kind are made alike: those of one class and name, where the size is found to change in all
            places, or to change in some.
        values: what it may become, the likeliest first; the last is what it is.
    """

    path: str
    name: str
    place: int | None
    kind: tuple[type, str, bool]
    values: tuple[int, ...]


@dataclass
class Sizes:
    """The sizes of all values, before and after, by the module whose forward works with them.

    Attributes:
        first: the first operator of each module.
        seen: of each module, sizes as they were, and what they are where they occur.
    """

    first: dict[str, Use] = field(default_factory=dict)
    seen: dict[str, dict[int, dict[int, None]]] = field(default_factory=dict)

    @classmethod
    def of(cls, structure: Structure, removal: Removal) -> Sizes:
        found = cls()
        for node in structure.trace.nodes:
            values = [dims for x in (*node.all_input_nodes, node) if (dims := _dims(structure, x))]
            if node.op != "call_function" or not values:
                continue
            path = module_of(node)
            seen = found.seen.setdefault(path, {})
            for dim in itertools.chain(*values):
                seen.setdefault(dim.size, {})[len(removal.indices(dim))] = None
            if path not in found.first:
                rank = len(values[0])
                convolution = isinstance(rule_of(node.target), Convolution)
                place = (
                    rank + 1 - len(values[1]) if convolution else min(1, rank - 1)
                )  # a weight has 2 more than places
                into, out = (len(removal.indices(dims[place])) for dims in (values[0], values[-1]))
                found.first[path] = Use(into, out)
        return found


def _dims(structure: Structure, node: fx.Node) -> list[Dim]:
    shape = structure.shapes.get(node)
    if isinstance(shape, tuple):  # of several results the first
        shape = shape[0]
    return shape.dims if isinstance(shape, Shaped) else []


def module_of(node: fx.Node) -> str:
    """The path of the module whose forward calls an operator."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def set_own_(model: nn.Module, sizes: Sizes) -> None:
    """Let the numbers of torch's modules be those of their tensors."""
    with undisturbed(model):  # spectral normalization, in training, goes a step on when a weight is read
        for path, module in model.named_modules():
            numbers = own_numbers(module)
            for name, value in numbers(module, sizes.first.get(path)).items() if numbers else ():
                setattr(module, name, value)


def choices(model: nn.Module, sizes: Sizes) -> list[Choice]:
    """The numbers of other modules that are sizes which change."""
    found = []
    for path, module in model.named_modules():
        seen = sizes.seen.get(path, {})
        if own_numbers(module) or all(size in after and len(after) == 1 for size, after in seen.items()):
            continue
        for name, kept in vars(module).items():
            several = type(kept) in (list, tuple)
            for place, number in enumerate(kept if several else [kept]):
                after = seen.get(number, {}) if type(number) is int else {}
                values = [new for new in after if new != number]
                if values:
                    kind = (type(module), name, number in after)
                    found.append(Choice(path, name, place if several else None, kind, (*values, number)))
    return found


def assignments(found: list[Choice]) -> Iterator[list[tuple[Choice, int]]]:
    """What all the numbers may become, the likeliest first: all that can change do."""
    kinds = {choice.kind: len(choice.values) for choice in found}
    ways = itertools.product(*(range(count) for count in kinds.values()))
    ordered = sorted(itertools.islice(ways, MOST_TRIALS), key=lambda way: sum(map(bool, way)))
    for way in ordered:
        which = dict(zip(kinds, way, strict=True))
        yield [(choice, choice.values[min(which[choice.kind], len(choice.values) - 1)]) for choice in found]


def assign_(model: nn.Module, chosen: list[tuple[Choice, int]]) -> None:
    """Write numbers into a model's modules."""
    for choice, value in chosen:
        module = model.get_submodule(choice.path)
        if choice.place is None:
            setattr(module, choice.name, value)
        else:
            kept = getattr(module, choice.name)
            changed = [value if place == choice.place else number for place, number in enumerate(kept)]
            setattr(module, choice.name, type(kept)(changed))
