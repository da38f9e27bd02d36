"""The full sizes of a compacted model: recorded on its modules, written to a file, and used to shrink another model.

If a tensor or an integer of a module (such as ``out_features`` or ``num_heads``) becomes smaller, the module keeps the
full size in a plain attribute. So copies, pickles, wrappers and parts of the model keep it as well, and its
``state_dict`` has no new entries. With the sizes, another model of the full size can be made as small without running
it: the values of its weights come from a file.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchlasso._core.wrappers import plain_name
from torchlasso.compaction.numbers import Found, Keys, numbers_of, set_numbers_

NOTE = "torchlasso_full_sizes"  # the attribute
Size = tuple[int, ...] | int | None  # the shape of a tensor, or an integer; None if a config does not have it yet


@contextmanager
def recording_sizes(model: nn.Module) -> Iterator[None]:
    """Record, on the modules of a model, the full sizes of the tensors and integers that change inside the context."""
    before = {module: sizes for _, module, sizes in _sizes(model)}
    yield
    for _, module, now in _sizes(model):
        changed = {keys: size for keys, size in before.get(module, {}).items() if now.get(keys, size) != size}
        if changed:
            vars(module)[NOTE] = changed | vars(module).get(NOTE, {})


def _sizes(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[Keys, Size]]]:
    """Yield the path of every module, the module, and the shapes of its tensors with the integers in its attributes."""
    seen: dict[int, Found] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        tensors = {**module._parameters, **module._buffers}
        sizes: dict[Keys, Size] = {
            (name,): tuple(w.shape) for name, w in tensors.items() if w is not None and not is_lazy(w)
        }
        yield plain_name(path), module, {**sizes, **numbers_of(module, seen)}


@contextmanager
def without_weak_references(model: nn.Module) -> Iterator[None]:
    """Let recurrent layers drop their weak references to parameters, for which torch refuses to swap a tensor.

    They also drop the weights that they computed from parametrized ones, whose graph holds the parameters.
    """
    layers: list[Any] = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
    for layer in layers:
        layer._flat_weight_refs = []
        layer._flat_weights = [None] * len(layer._flat_weights_names)
    try:
        yield
    finally:
        for layer in layers:
            with torch.no_grad():
                layer._init_flat_weights()  # on a GPU, this also puts the weights one after the other again


def replace_value_(tensor: Tensor, value: Tensor, grad: Tensor | None = None) -> Callable[[], None]:
    """Give a tensor a new value of another shape, keeping the object, and return the function that undoes it.

    Raises:
        RuntimeError: another object in torch holds the tensor.
    """
    value = value.clone(memory_format=_layout(tensor))
    new = value.as_subclass(type(tensor)).requires_grad_(tensor.requires_grad)
    new.grad = grad
    new.__dict__.update(tensor.__dict__)

    def swap() -> None:
        torch.utils.swap_tensors(tensor, new)  # type: ignore[no-untyped-call]

    swap()
    return swap


def _layout(tensor: Tensor) -> torch.memory_format:
    """Return the layout of a tensor in memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous():
        return last
    return torch.contiguous_format


@dataclass(frozen=True)
class ChangedNumber:
    """An integer in an attribute of a module that became smaller, or that was added to its config."""

    path: str
    keys: Keys
    full: int | None
    now: int

    def __str__(self) -> str:
        return f"{'.'.join(map(str, filter(str, (self.path, *self.keys))))!r:.80}"


@dataclass(frozen=True)
class Resizing:
    """The changed sizes of a compacted model.

    Attributes:
        tensors: the full shapes of the parameters and buffers that became smaller, by name.
        numbers: the integers in attributes of modules that changed.
    """

    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: tuple[ChangedNumber, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Resizing:
        """Collect the sizes that are recorded on the modules of a model."""
        tensors, numbers, shared = {}, [], set()
        if not any(NOTE in vars(module) for module in model.modules()):
            return cls()
        for path, module, sizes in _sizes(model):
            for keys, full in vars(module).get(NOTE, {}).items():
                now = sizes.get(keys, full)
                if isinstance(now, tuple) and now != full:
                    tensors[f"{path}.{keys[0]}".lstrip(".")] = full
                elif isinstance(now, int) and now != full:
                    root = vars(module)[keys[0]]
                    place = (id(root), keys[1:]) if len(keys) > 1 and not isinstance(root, tuple) else (path, keys)
                    if place not in shared:
                        numbers.append(ChangedNumber(path, keys, full, now))
                    shared.add(place)
        return cls(tensors, tuple(numbers))

    def to_json(self) -> dict[str, Any]:
        """Return the content for a file."""
        numbers = [[number.path, list(number.keys), number.full, number.now] for number in self.numbers]
        return {"tensors": {name: list(shape) for name, shape in self.tensors.items()}, "numbers": numbers}

    @classmethod
    def from_json(cls, content: Any) -> Resizing:
        """Read the result of :meth:`to_json`.

        Raises:
            ValueError: the content is something else.
        """
        match content:
            case {"tensors": dict(tensors), "numbers": [*numbers]}:
                return cls({name: _shape(shape) for name, shape in tensors.items()}, tuple(map(_number, numbers)))
        raise ValueError(f"its record of removed units is {content!r:.80}")

    def changes(self, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Changes:
        """Return the changes that give the tensors of a model these shapes; the model is not changed.

        Args:
            model: a model of the full size, or one of which some or all tensors are as small already.
            shapes: the shapes of the tensors that became smaller, by name.
        """
        found, modules = Changes(), {path: (module, sizes) for path, module, sizes in _sizes(model)}
        for name, full in self.tensors.items():
            path, _, last = name.rpartition(".")
            module, sizes = modules.get(path, (model, {}))
            here, new = sizes.get((last,)), shapes.get(name)
            if new is not None and new != here and _is_smaller(new, here) and _full(module, (last,), here) == full:
                found.tensors[name] = getattr(module, last)
        every = [size for _, sizes in modules.values() for size in sizes.values() if isinstance(size, tuple)]
        largest = max((n for shape in every for n in shape), default=0)
        for number in self.numbers:
            module, sizes = modules.get(number.path, (model, {}))
            here = sizes.get(number.keys, ())
            most = largest if here is None else here - 1 if isinstance(here, int) else 0
            if 0 < number.now <= most and _full(module, number.keys, here) == number.full:
                found.numbers.append((module, number))
            elif here != number.now and (found.tensors or here != ()):  # the class of a small model may be a new one
                found.misfits.append(f"{number} was {number.full}; the model has {here or 'no such number'}")
        return found


def _is_smaller(new: tuple[int, ...], old: Size) -> bool:
    if not isinstance(old, tuple) or len(new) != len(old):
        return False
    return all(min(1, whole) <= n <= whole for n, whole in zip(new, old, strict=True))


def _full(module: nn.Module, keys: Keys, here: Size) -> Size:
    size: Size = vars(module).get(NOTE, {}).get(keys, here)
    return size


def _shape(content: Any) -> tuple[int, ...]:
    if isinstance(content, list) and all(type(n) is int and n >= 0 for n in content):
        return tuple(content)
    raise ValueError(f"a recorded full shape is {content!r:.80}")


def _number(content: Any) -> ChangedNumber:
    match content:
        case [str(path), [str(), *_] as keys, full, now] if (
            all(type(key) in (str, int) for key in keys) and type(now) is int and (full is None or type(full) is int)
        ):
            return ChangedNumber(path, tuple(keys), full, now)
    raise ValueError(f"a recorded size is {content!r:.80}")


@dataclass
class Changes:
    """The changes that make a model as small as another one; found first, then applied.

    Attributes:
        tensors: the tensors to make smaller, by name.
        numbers: the integers to change, with their modules.
        misfits: the integers that differ from those of the model that was compacted, one sentence each.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: list[tuple[nn.Module, ChangedNumber]] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)

    @contextmanager
    def applied(self, model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Apply the changes, and undo them if the body of the context fails; tensors stay the same objects.

        Raises:
            ValueError: another object holds one of the tensors.
        """
        with recording_sizes(model), without_weak_references(model), ExitStack() as undo, torch.no_grad():
            for name, tensor in self.tensors.items():
                if _is_held(tensor):
                    raise ValueError(
                        f"another object holds {name!r}, so it cannot become smaller: load before the model is wrapped "
                        "for training, and not between a forward and a backward pass"
                    )
            undo.callback(set_numbers_(model, [(module, number.keys, number.now) for module, number in self.numbers]))
            for name, tensor in {id(tensor): (name, tensor) for name, tensor in self.tensors.items()}.values():
                device = "cpu" if tensor.is_meta else tensor.device
                undo.callback(replace_value_(tensor, values[name].to(device, tensor.dtype)))
            yield
            undo.pop_all()


def _is_held(tensor: Tensor) -> bool:
    """Return True if ``swap_tensors`` would refuse a tensor, or swap one that a backward pass still needs."""
    return weakref.getweakrefcount(tensor) > 0 or is_in_graph(tensor)


def is_in_graph(tensor: Tensor) -> bool:
    """Return True if the graph of an output holds a tensor for a backward pass."""
    most = 2 if tensor.requires_grad else 1  # the tensor itself, and the graph node that accumulates its gradient
    return bool(tensor._use_count() > most)  # type: ignore[attr-defined]
