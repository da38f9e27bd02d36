"""Copy a model as ``copy.deepcopy`` does, in a fraction of the time: a model is copied before each of its runs."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

ATOMS = frozenset({type(None), bool, int, float, str, FunctionType})  # types that deepcopy returns unchanged
EMPTY = frozenset({dict, OrderedDict, set, list})  # containers with nothing to copy where they are empty


def copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """Copy a model and everything that belongs to it.

    Args:
        model: it is not changed.
        memo: replacements of objects in the copy, by their ``id``; other copies are added to it.
    """
    memo.update(without_graph(model))
    plain = [module for module in model.modules() if id(module) not in memo and _is_plain(module)]
    for module in plain:  # before their attributes, which may refer to them
        memo[id(module)] = type(module).__new__(type(module))
    for module in plain:
        state = {}
        for name, value in module.__getstate__().items():  # type: ignore[no-untyped-call]
            kind = type(value)
            if kind in ATOMS:
                state[name] = value
            elif kind in EMPTY and not value and id(value) not in memo:  # most of a module's attributes
                state[name] = memo[id(value)] = kind()
            else:
                state[name] = _part(value, memo)
        memo[id(module)].__setstate__(state)
    found: nn.Module = copy.deepcopy(model, memo)
    return found


def without_graph(model: nn.Module) -> dict[int, Any]:
    """Return replacements, for a copy, of the tensors of the last pass that modules keep, without their graph.

    Torch refuses to copy a tensor with a graph: a weight that a hook or a parametrized recurrent layer computes in each
    pass, or whatever a module of the user keeps as an attribute, such as a state. The weak references of recurrent
    layers would hold the parameters of the original.
    """
    seen = set[int]()
    kept = [tensor for module in model.modules() for tensor in _tensors(vars(module), seen) if not tensor.is_leaf]
    layers: list[Any] = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    refs = [layer._flat_weight_refs for layer in layers if is_parametrized(layer)]
    return {id(tensor): tensor.detach() for tensor in kept} | {id(each): [_no_weight] * len(each) for each in refs}


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Find the tensors in an attribute, a container, or containers in it that were not seen before."""
    kind = type(value)
    if isinstance(value, Tensor):
        yield value
    elif kind in (dict, OrderedDict, list, tuple) and id(value) not in seen:
        seen.add(id(value))
        for part in value.values() if kind in (dict, OrderedDict) else value:
            yield from _tensors(part, seen)


def _no_weight() -> None:
    """Return what a weak reference to a weight that is gone returns, so that the layer takes its weights anew."""


def _is_plain(module: nn.Module) -> bool:
    """Return True for a module that is copied attribute by attribute."""
    cls: Any = type(module)
    default = cls.__reduce_ex__ is object.__reduce_ex__ and cls.__reduce__ is object.__reduce__
    return default and cls.__getstate__ is nn.Module.__getstate__ and not hasattr(cls, "__deepcopy__")


def _part(value: Any, memo: dict[int, Any]) -> Any:
    """Copy an attribute; most are numbers, objects that are copied already, or containers of these."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict:
        found = memo[id(value)] = {}  # before its parts, which may refer to it
        found.update((_part(key, memo), _part(part, memo)) for key, part in value.items())
        return found
    if kind in (set, OrderedDict) and all(type(part) in ATOMS for part in _parts(value)):
        return memo.setdefault(id(value), value.copy())
    return copy.deepcopy(value, memo)


def _parts(value: set[Any] | OrderedDict[Any, Any]) -> Iterable[Any]:
    return value if isinstance(value, set) else chain(value, value.values())
