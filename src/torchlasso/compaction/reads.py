"""The integers in attributes that a forward pass reads: each is replaced by one that records its uses."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso._core.kept import kept, put_
from torchlasso._core.running import ExampleInputs, Running, as_arguments, repeatable, throwaway
from torchlasso.compaction.candidates import Place, Reads
from torchlasso.graph.precision import Precision

BINARY = ("add", "sub", "mul", "floordiv", "mod", "pow", "truediv", "lshift", "rshift", "and", "or", "xor")
COMPARED = ("lt", "le", "eq", "ne", "gt", "ge")
UNARY = ("neg", "pos", "abs", "float", "int", "index", "hash", "bool")


class _Noted(int):
    """An integer that records its uses, with the places that it was computed from."""

    places: frozenset[Place]
    note: Callable[[frozenset[Place]], None]

    @classmethod
    def of(cls, value: int, places: frozenset[Place], note: Callable[[frozenset[Place]], None]) -> _Noted:
        made = cls(value)
        made.places, made.note = places, note
        return made

    def __reduce__(self) -> Any:
        return int, (int(self),)

    def __deepcopy__(self, memo: Any) -> _Noted:
        return self


def _noting(name: str) -> Callable[..., Any]:
    """Return a method that records the use, and whose result records its uses as well."""
    plain = getattr(int, name)

    def method(self: _Noted, *others: Any) -> Any:
        self.note(self.places)
        value = plain(self, *others)
        if type(value) is not int or name in ("__hash__", "__index__", "__int__"):
            return value
        places = [x.places for x in others if isinstance(x, _Noted)]
        return _Noted.of(value, self.places.union(*places), self.note)

    return method


for _name in (*BINARY, *(f"r{name}" for name in BINARY), *COMPARED, *UNARY):
    setattr(_Noted, f"__{_name}__", _noting(f"__{_name}__"))


class _Arguments(TorchFunctionMode):
    """A mode that records the recording integers among the arguments of torch's functions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        copies = getattr(func, "__name__", "") == "__deepcopy__"  # its memo argument holds everything copied so far
        for leaf in () if copies else tree_leaves((args, kwargs)):
            parts = (leaf.start, leaf.stop, leaf.step) if isinstance(leaf, slice) else (leaf,)
            for part in parts:
                if isinstance(part, _Noted):
                    part.note(part.places)
        return func(*args, **(kwargs or {}))


def numbers_read(model: nn.Module, inputs: ExampleInputs, precision: Precision) -> Reads:
    """Run a model once, and return the integers in attributes that it computes with, and the modules that read them.

    Args:
        model: it is not changed. It runs without values, which is fast, or with values if its code depends on them. If
            it does not run with integers that record their uses, as in compiled code, every integer counts as read in
            its own module.
        inputs: the example inputs.
        precision: the precision of the model.
    """
    noted = _NotingModel(precision.unwritten(model).to("meta"))
    with suppress(Exception), torch.device("meta"):  # of any kind: it is the model's own code
        return noted.reads(tree_map(_without_values, precision.tensors(inputs)), precision)
    noted = _NotingModel(throwaway(model))
    with suppress(Exception):
        return noted.reads(precision.tensors(inputs), precision)
    return {place: {place[0]} for place in noted.places}


class _NotingModel:
    """A model whose integers record their uses.

    Args:
        model: a copy that is not used again.

    Attributes:
        places: the places of all integers.
    """

    def __init__(self, model: nn.Module) -> None:
        self.places: list[Place] = []
        self._model, self._running = model.eval(), Running()
        self._reads: Reads = {}
        shared = set[int]()
        for path, module in self._model.named_modules():
            for keys, value in kept(module, shared):
                if type(value) is int:
                    self.places.append((path, keys))
                    put_(module, keys, _Noted.of(value, frozenset({(path, keys)}), self._note))

    def _note(self, places: frozenset[Place]) -> None:
        for place in places if self._running.paths else ():  # outside of a forward pass, the model is being copied
            self._reads.setdefault(place, set()).add(self._running.path)

    def reads(self, inputs: ExampleInputs, precision: Precision) -> Reads:
        """Run the model on inputs in a precision; return the places that are read, with the modules that read them."""
        args, kwargs = as_arguments(inputs)
        with self._running.watching(self._model), torch.no_grad(), repeatable(), precision.running(), _Arguments():
            self._model(*args, **kwargs)
        return self._reads


def _without_values(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value
