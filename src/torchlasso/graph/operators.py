"""Rules of operators: how they tie dimensions together, and which values reach which.

Each rule says two things of a family of operators. ``shape``: the dimensions of the result, out of those of the inputs,
which it unifies or pins where the operator asks for it. ``reach``: which elements of the result may depend on the
model's inputs, from which of its own inputs do. The latter is a sum of products with non-negative weights, so that its
gradient says which elements of an input can make a difference to the model's outputs.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, fx

from torchlasso._core.registry import Registry
from torchlasso.graph.axes import Dim, pin, pinned
from torchlasso.graph.unification import unify

Dims = list[Dim]


@dataclass(frozen=True)
class Shaped:
    """The dimensions and the type of a value."""

    dims: Dims
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Reach:
    """The elements of a value, as far as they are followed.

    Attributes:
        value: in a run on the example inputs; that of elements that do not depend on the inputs is theirs always.
        depends: 1 where an element may depend on the model's inputs, else 0; float32.
    """

    value: Any
    depends: Tensor

    @property
    def nonzero(self) -> Tensor:
        """1 where an element may be other than zero, else 0."""
        nonzero: Tensor = self.value != 0
        return (nonzero if self.fixed else nonzero | (self.depends.detach() > 0)).float()

    @property
    def fixed(self) -> bool:
        """Return whether no element depends on the model's inputs, as in a parameter."""
        return not self.depends.requires_grad

    @property
    def dtype(self) -> torch.dtype:
        """The type of the value."""
        return self.value.dtype  # type: ignore[no-any-return]


def all_dims(shape: Any) -> Dims:
    """The dimensions of a value, or of all of several."""
    if isinstance(shape, tuple):
        return [dim for one in shape for dim in all_dims(one)]
    return shape.dims if isinstance(shape, Shaped) else []


T = TypeVar("T", Shaped, Reach)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call of an operator.

    Attributes:
        name: of the operator, for messages.
        args: its arguments by name, with what is known of each tensor in its place.
        value: the result, or a tuple of them; for :meth:`OperatorRule.shape` without data.
    """

    name: str
    args: dict[str, Any]
    value: Any

    def __getitem__(self, name: str) -> Any:
        return self.args[name]

    def get(self, name: str, default: Any = None) -> Any:
        found = self.args.get(name)
        return default if found is None else found

    def axis(self, rank: int, name: str = "dim") -> int:
        """An argument that says which dimension, from 0."""
        return int(self.args[name]) % max(1, rank)

    @property
    def several(self) -> bool:
        """Return whether there is more than one result."""
        return isinstance(self.value, tuple | list)

    def each(self, found: Any) -> Any:
        """The same for each of several results, or for the only one."""
        return tuple(found for _ in self.value) if self.several else found

    @property
    def tensors(self) -> list[T]:
        """All tensors among the arguments, in order."""
        return list(found_in(self.args, (Shaped, Reach)))


def found_in(value: Any, kinds: tuple[type, ...]) -> Iterator[Any]:
    """Yield the objects of these classes in a nest of dictionaries, lists and tuples, in order."""
    if isinstance(value, kinds):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from found_in(part, kinds)


class OperatorRule(ABC):
    """The rule of a family of operators.

    Attributes:
        adds_up: whether an element of the result is a sum over a dimension of an input, all of which can become smaller
            where what is left out is zero.
        local: whether each element of the result is made of those at its place, however many places there are. Other
            operators make something else of the same constants if there are more of them.
    """

    adds_up: ClassVar[bool] = False
    local: ClassVar[bool] = False

    @abstractmethod
    def shape(self, call: Call[Shaped]) -> Any:
        """The dimensions of the result, or of each of several."""

    def alike(self, call: Call[Shaped], shape: Any) -> list[Dims]:
        """Dimensions of what :meth:`shape` gave that must keep equally many indices, though not the same ones."""
        return []

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        """Return the tensors that are added up, each with the dimension along which they are."""
        return []

    @abstractmethod
    def reach(self, call: Call[Reach]) -> Any:
        """Return which elements of each result depend on the inputs: more than 0 where they may."""


RULES: Registry[str, OperatorRule] = Registry("rule of")


def rule(*names: str) -> Callable[[type[OperatorRule]], type[OperatorRule]]:
    """Register what is known of operators of these names, such as ``"linear"``."""

    def register(cls: type[OperatorRule]) -> type[OperatorRule]:
        for name in names:
            RULES.enter(f"aten.{name}", cls())
        return cls

    return register


def rule_of(target: Any) -> OperatorRule | None:
    """Return the rule of an operator, if it has one."""
    if target is operator.getitem:
        return RULES["aten.getitem"]
    if not isinstance(target, torch._ops.OpOverload):
        return None
    known = RULES.get(str(target)) or RULES.get(name_of(target))  # an overload may do something else than its name
    if known is None and torch.Tag.pointwise in target.tags:
        known = RULES["aten.pointwise"]
    if known is None and torch.Tag.reduction in target.tags:
        known = RULES["aten.reduction"]
    return known


def name_of(target: Any) -> str:
    return str(getattr(target, "overloadpacket", target))


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, those that are left out too."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(i): value for i, value in enumerate(node.args)} | dict(node.kwargs)
    found = {}
    for i, spec in enumerate(node.target._schema.arguments):
        found[spec.name] = node.args[i] if i < len(node.args) else node.kwargs.get(spec.name, spec.default_value)
    return found


def all_pinned(shape: Sequence[int], reason: str) -> Dims:
    """New dimensions that stay as they are."""
    return [pinned(size, reason) for size in shape]


def pin_all(dims: Iterable[Dim], reason: str) -> None:
    for dim in dims:
        pin(dim, reason)


def unify_all(several: Iterable[Dims], reason: str) -> None:
    """Unify the dimensions of tensors of one shape."""
    first, *others = several
    for other in others:
        for a, b in zip(first, other, strict=True):
            unify(a, b, reason)
