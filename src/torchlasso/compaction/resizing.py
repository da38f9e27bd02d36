"""The sizes that a model lost: noted on its modules as they change, written down, and taken from another model.

A module of which a tensor or a number (such as ``out_features`` or ``num_heads``) became smaller keeps the full sizes
in a plain attribute. So they go along with copies, pickles, wrappers and parts of a model, and its ``state_dict`` is
what it was. Sizes are enough to do the same to another model of the full size, without running it: the values come from
a file.
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
Size = tuple[int, ...] | int | None  # the shape of a tensor, or a number, which a config may not have yet


@contextmanager
def noting(model: nn.Module) -> Iterator[None]:
    """Note on the modules of a model the sizes that change meanwhile, as they were at the very first."""
    before = {module: sizes for _, module, sizes in _sizes(model)}
    yield
    for _, module, now in _sizes(model):
        changed = {keys: size for keys, size in before.get(module, {}).items() if now.get(keys, size) != size}
        if changed:
            vars(module)[NOTE] = changed | vars(module).get(NOTE, {})


def _sizes(model: nn.Module) -> Iterator[tuple[str, nn.Module, dict[Keys, Size]]]:
    """Yield every module, its path, and the shapes of its tensors and the numbers that it keeps."""
    seen: dict[int, Found] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        tensors = {**module._parameters, **module._buffers}
        sizes: dict[Keys, Size] = {
            (name,): tuple(w.shape) for name, w in tensors.items() if w is not None and not is_lazy(w)
        }
        yield plain_name(path), module, {**sizes, **numbers_of(module, seen)}


def become_(tensor: Tensor, value: Tensor, grad: Tensor | None = None) -> Callable[[], None]:
    """Give a tensor another value, of another shape, while it stays the same object; the result takes it back.

    Raises:
        RuntimeError: something in torch holds on to the tensor.
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
    """Return how the elements of a tensor lie in memory."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous():
        return last
    return torch.contiguous_format


@dataclass(frozen=True)
class ChangedNumber:
    """A number of a module that became smaller, or that came into its config."""

    path: str
    keys: Keys
    full: int | None
    now: int

    def __str__(self) -> str:
        return f"{'.'.join(map(str, filter(str, (self.path, *self.keys))))!r:.80}"


@dataclass(frozen=True)
class Resizing:
    """The sizes that a model lost.

    Attributes:
        tensors: the full shapes of parameters and buffers that are smaller, by name.
        numbers: of its modules.
    """

    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    numbers: tuple[ChangedNumber, ...] = ()

    @classmethod
    def of(cls, model: nn.Module) -> Resizing:
        """Collect the notes on the modules of a model."""
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
        """Return it as it stands in a file."""
        numbers = [[number.path, list(number.keys), number.full, number.now] for number in self.numbers]
        return {"tensors": {name: list(shape) for name, shape in self.tensors.items()}, "numbers": numbers}

    @classmethod
    def from_json(cls, content: Any) -> Resizing:
        """Read what :meth:`to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        match content:
            case {"tensors": dict(tensors), "numbers": [*numbers]}:
                return cls({name: _shape(shape) for name, shape in tensors.items()}, tuple(map(_number, numbers)))
        raise ValueError(f"what was cut is {content!r:.80}")

    def changes(self, model: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Changes:
        """Find out what has to be done to a model for its tensors to be of these shapes; it is not changed.

        Args:
            model: of the full size, or in part or wholly as small already.
            shapes: those of the tensors that became smaller, by name.
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
            elif here != number.now and (found.tensors or here != ()):  # a small model may have been written anew
                found.misfits.append(f"{number} was {number.full} and is {here or 'no number'} in the model")
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
    raise ValueError(f"a shape before it was cut is {content!r:.80}")


def _number(content: Any) -> ChangedNumber:
    match content:
        case [str(path), [str(), *_] as keys, full, now] if (
            all(type(key) in (str, int) for key in keys) and type(now) is int and (full is None or type(full) is int)
        ):
            return ChangedNumber(path, tuple(keys), full, now)
    raise ValueError(f"a number that was cut is {content!r:.80}")


@dataclass
class Changes:
    """The changes that make a model as small as another one, found before anything is done.

    Attributes:
        tensors: those to become smaller.
        numbers: likewise, and the modules that keep them.
        misfits: numbers that are others than in the model that was cut, one sentence each.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: list[tuple[nn.Module, ChangedNumber]] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)

    @contextmanager
    def made(self, model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
        """Make the changes, and take them back if what is done next fails; tensors stay the objects that they are.

        Raises:
            ValueError: something holds on to one of the tensors.
        """
        for name, tensor in self.tensors.items():
            if _is_held(tensor):
                raise ValueError(
                    f"{name!r} is held by something else and cannot become smaller: load before the model is wrapped "
                    "for training, and not between a forward and a backward pass"
                )
        with noting(model), ExitStack() as undo, torch.no_grad():
            undo.callback(set_numbers_(model, [(module, number.keys, number.now) for module, number in self.numbers]))
            for name, tensor in {id(tensor): (name, tensor) for name, tensor in self.tensors.items()}.values():
                device = "cpu" if tensor.is_meta else tensor.device
                undo.callback(become_(tensor, values[name].to(device, tensor.dtype)))
            yield
            undo.pop_all()


def _is_held(tensor: Tensor) -> bool:
    """Return True where ``swap_tensors`` would refuse a tensor, or do so to what a backward pass still needs."""
    most = 2 if tensor.requires_grad else 1  # itself, and the node of the graph that adds up its gradient
    return weakref.getweakrefcount(tensor) > 0 or tensor._use_count() > most  # type: ignore[attr-defined]
