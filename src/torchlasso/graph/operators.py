"""Rules of operators: the dimensions of their results, and the dependence of the results on the inputs.

Each rule describes a family of operators by two methods. ``shape`` returns the dimensions of the result, made of the
dimensions of the inputs, and unifies or pins them as the operator requires. ``reach`` returns the elements of the
result that may depend on the model's inputs, given those of the operator's inputs that may. It is computed as a sum of
products with non-negative factors, so its gradient shows the elements that can change the model's outputs.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import FunctionType
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
    """The elements of a value, and their dependence on the model's inputs.

    Attributes:
        value: the value in a run on the example inputs. Elements that do not depend on the inputs always have it.
        depends: 1 where an element may depend on the model's inputs, else 0; float32.
    """

    value: Any
    depends: Tensor

    @property
    def nonzero(self) -> Tensor:
        """1 where an element may differ from zero, else 0."""
        nonzero: Tensor = self.value != 0
        return (nonzero if self.fixed else nonzero | (self.depends.detach() > 0)).float()

    @property
    def fixed(self) -> bool:
        """True if no element depends on the model's inputs, as in a parameter."""
        return not self.depends.requires_grad

    @property
    def dtype(self) -> torch.dtype:
        """The type of the value."""
        return self.value.dtype  # type: ignore[no-any-return]


def all_dims(shape: Any) -> Dims:
    """Return the dimensions of a value, or of all values in a tuple."""
    if isinstance(shape, tuple):
        return [dim for one in shape for dim in all_dims(one)]
    return shape.dims if isinstance(shape, Shaped) else []


T = TypeVar("T", Shaped, Reach)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A call of an operator.

    Attributes:
        name: the name of the operator, for messages.
        args: the arguments by name, with a :class:`Shaped` or :class:`Reach` in the place of each tensor.
        value: the result, or a tuple of results; without data for :meth:`OperatorRule.shape`.
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
        """Return an argument that is the index of a dimension, counted from 0."""
        return int(self.args[name]) % max(1, rank)

    @property
    def several(self) -> bool:
        """True if the operator has more than one result."""
        return isinstance(self.value, tuple | list)

    def each(self, found: Any) -> Any:
        """Return the same for each of several results, or for the only one."""
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


@dataclass(frozen=True)
class Products:
    """Values that an operator multiplies by slices of weights.

    Attributes:
        values, dim: the number of the tensor among those of the call, and its dimension; None for all of its elements.
        weights, along: likewise the number of the tensor of weights, and the dimension that is sliced.
        runs: both dimensions consist of so many equal runs; the slices in run k multiply the values in run k alone.
        adds_up: whether the products are added up, so that no element of the result is a value as it was.
    """

    values: int
    dim: int | None
    weights: int
    along: int
    runs: int
    adds_up: bool = True


class OperatorRule(ABC):
    """The rule of a family of operators.

    Attributes:
        adds_up: whether an element of the result is a sum over a dimension of an input. Such a dimension can become
            smaller if the removed elements are zero.
        local: whether each element of the result is computed from the elements at its own position, however many
            positions there are. The results of other operators change if the same constants occur more often.
    """

    adds_up: ClassVar[bool] = False
    local: ClassVar[bool] = False

    @abstractmethod
    def shape(self, call: Call[Shaped]) -> Any:
        """Return the dimensions of the result, or of each of several results."""

    def alike(self, call: Call[Shaped], shape: Any) -> list[Dims]:
        """Return dimensions in the result of :meth:`shape` that must keep equally many indices, but any of them."""
        return []

    def reads(self, call: Call[Shaped]) -> list[tuple[int, int]]:
        """Return the numbers of the tensors that are added up, each with the dimension of the sum."""
        return []

    def weighs(self, call: Call[Reach]) -> list[Products]:
        """Return the values that are multiplied by weights."""
        return []

    @abstractmethod
    def reach(self, call: Call[Reach]) -> Any:
        """Return, for each element of each result, a number above 0 if it may depend on the model's inputs."""


RULES: Registry[str, OperatorRule] = Registry("rule of")


def rule(*names: str) -> Callable[[type[OperatorRule]], type[OperatorRule]]:
    """Return a class decorator that registers a rule for the operators of these names, such as ``"linear"``."""

    def register(cls: type[OperatorRule]) -> type[OperatorRule]:
        for name in names:
            RULES.enter(f"aten.{name}", cls())
        return cls

    return register


def rule_of(target: Any) -> OperatorRule | None:
    """Return the rule of an operator, if it has one."""
    if target is operator.getitem:
        return RULES["aten.getitem"]
    if isinstance(target, FunctionType):  # a recurrence
        return RULES.get(f"aten.{target.__name__}")
    if not isinstance(target, torch._ops.OpOverload):
        return None
    known = RULES.get(str(target)) or RULES.get(name_of(target))  # an overload may have a rule of its own
    if known is None and torch.Tag.pointwise in target.tags:
        known = RULES["aten.pointwise"]
    if known is None and torch.Tag.reduction in target.tags:
        known = RULES["aten.reduction"]
    return known


def name_of(target: Any) -> str:
    return target.__name__ if isinstance(target, FunctionType) else str(getattr(target, "overloadpacket", target))


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a call by name, including defaults."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return {str(i): value for i, value in enumerate(node.args)} | dict(node.kwargs)
    found = {}
    for i, spec in enumerate(node.target._schema.arguments):
        found[spec.name] = node.args[i] if i < len(node.args) else node.kwargs.get(spec.name, spec.default_value)
    return found


def all_pinned(shape: Sequence[int], reason: str) -> Dims:
    """Return new pinned dimensions of these sizes."""
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
