"""Update the config of a transformers model after compaction, if a config can describe the smaller model.

This module knows no architecture. It tries new numbers in the config, and builds models without values, until one has
all tensors and sizes of the smaller model and computes the same outputs.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchlasso._core.memory import uncollected
from torchlasso._core.running import ExampleInputs, repeatable, run_once, tensors_in
from torchlasso.compaction.numbers import Found, Keys, numbers_in, numbers_of, set_numbers_, with_number
from torchlasso.compaction.own_precision import same_outputs
from torchlasso.compaction.resizing import Resizing, recording_sizes

MOST_BUILT = 64  # models without values that are built to find a config

ConfigNumbers = dict[Keys, int]  # new numbers of a config
UNTRUE = (
    "config cannot describe these sizes, so from_pretrained cannot build this model: build the full model from the "
    "config, and torchlasso.load the file that torchlasso.save wrote"
)


@uncollected()
def update_config_(model: nn.Module, example_inputs: ExampleInputs) -> str:
    """Update the config of a model that became smaller, if a config can describe it.

    Returns:
        The changed numbers, or a sentence that no config can describe the model; an empty string if the model has no
        config or did not become smaller.
    """
    config, cut = vars(model).get("config"), Resizing.of(model)
    if not (_is_config(config) and cut.tensors):
        return ""
    wanted, old = functools.cache(lambda: tensors_in(run_once(model, example_inputs))), dict(numbers_in(config))
    for found in _models_that_fit(model, config, cut):
        with recording_sizes(model):
            outputs = wanted()  # before the model changes
            undo = set_numbers_(model, _numbers_to_set(model, found))
            if _take_tensors(model, found.built) and all(
                same_outputs(outputs, each, example_inputs) for each in (model, found.built)
            ):
                return "; ".join(
                    f"config.{'.'.join(map(str, keys))}: {old[keys]} -> {n}" for keys, n in found.numbers.items()
                )
            undo()
    return UNTRUE


_DRAWN = {Tensor.normal_, Tensor.uniform_}


class _WithoutValues(TorchFunctionMode):
    """A mode in which empty tensors take no memory; tensors that are computed from the config have values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}
        if func in _DRAWN and args[0].is_meta:
            return args[0]  # torch would check the shapes of a value that is not drawn, which takes milliseconds
        return func(*args, **kwargs)


def _built(cls: type[nn.Module], config: Any) -> nn.Module | None:
    """Build a model without values from a config as if read from a file; None if its own code refuses."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)  # transformers warns about wrong configs, which are only trials here
        with repeatable(), _WithoutValues():
            return cls(type(config).from_dict(config.to_dict()))
    except Exception:  # of any kind: it is the model's own code
        return None
    finally:
        logging.disable(level)


@dataclass(frozen=True)
class _Sizes:
    """The shapes of a model's tensors, and the integers of its modules that changed when it became smaller."""

    shapes: dict[str, tuple[int, ...]]
    numbers: dict[tuple[str, Keys], int | None]

    @classmethod
    def of(cls, model: nn.Module, cut: Resizing) -> _Sizes:
        modules = dict(model.named_modules())
        seen: dict[int, Found] = {}
        kept = {path: numbers_of(modules[path], seen) for path in {n.path for n in cut.numbers} if path in modules}
        numbers = {(n.path, n.keys): kept.get(n.path, {}).get(n.keys) for n in cut.numbers}
        return cls({name: tuple(w.shape) for name, w in _tensors(model)}, numbers)

    def wrong(self, other: _Sizes) -> set[Any]:
        """Return the names of tensors and the places of integers that differ in another model."""
        shapes = {name for name in self.shapes | other.shapes if self.shapes.get(name) != other.shapes.get(name)}
        return shapes | {place for place, n in self.numbers.items() if n != other.numbers.get(place)}

    def became(self, other: _Sizes) -> list[tuple[int, int]]:
        """List the sizes that differ in another model as pairs (here, there), the most frequent first."""
        pairs: Counter[tuple[int | None, int | None]] = Counter()
        for name, shape in self.shapes.items():
            pairs.update(zip(shape, other.shapes.get(name, ()), strict=False))
        pairs.update((n, other.numbers.get(place)) for place, n in self.numbers.items())
        return [(full, now) for (full, now), _ in pairs.most_common() if full != now and full and now]

    def differ_where_alike(self, other: _Sizes) -> bool:
        """Return True if layers whose paths differ only in a number have different sizes in another model."""
        now: dict[tuple[str, tuple[int, ...]], set[tuple[int, ...] | None]] = {}
        for name, shape in self.shapes.items():
            now.setdefault((re.sub(r"(?<=\.)\d+(?=\.)", "#", name), shape), set()).add(other.shapes.get(name))
        return any(len(shapes) > 1 for shapes in now.values())


@dataclass(frozen=True)
class _BuiltModel:
    """A model built in a trial: the changed numbers of its config, its sizes, and the sizes that are wrong."""

    numbers: ConfigNumbers
    built: nn.Module
    sizes: _Sizes
    wrong: set[Any]


def _models_that_fit(model: nn.Module, config: Any, cut: Resizing) -> Iterator[_BuiltModel]:
    """Yield models without values that have the sizes of this one, with few numbers of the config changed."""
    wanted = _Sizes.of(model, cut)
    tried: set[frozenset[tuple[Keys, int]]] = set()

    def attempts(several: Iterable[ConfigNumbers]) -> Iterator[_BuiltModel]:
        for numbers in several:
            key = frozenset(numbers.items())
            if key not in tried and len(tried) < MOST_BUILT:
                tried.add(key)
                built = _built(type(model), _changed(config, numbers))
                if built is not None:
                    sizes = _Sizes.of(built, cut)
                    yield _BuiltModel(numbers, built, sizes, sizes.wrong(wanted))

    first = best = next(attempts([{}]), None)
    by_layer = any(type(key) is int for keys, _ in numbers_in(config) for key in keys)  # such as a list of widths
    if first is None or (first.sizes.differ_where_alike(wanted) and not by_layer):
        return
    while best is not None:
        if not best.wrong:
            yield best
        nearer = None
        for some in _next_trials(config, best, wanted, attempts):
            for attempt in some:
                if not attempt.wrong:
                    yield attempt
                elif len(attempt.wrong) < len((nearer or best).wrong) and attempt.wrong <= first.wrong:
                    nearer = attempt  # no size that was right became wrong
            if nearer is not None:
                break
        best = nearer


def _next_trials(
    config: Any, best: _BuiltModel, wanted: _Sizes, attempts: Callable[[Iterable[ConfigNumbers]], Iterator[_BuiltModel]]
) -> Iterator[Iterable[_BuiltModel]]:
    """Yield the next trials: change numbers that equal a size, are missing, or divide a size; then pairs of these."""
    became = best.sizes.became(wanted)
    kept = [(keys, n) for keys, n in numbers_in(config) if keys not in best.numbers]
    whole = [(keys, now) for full, now in became for keys, n in kept if n == full]
    missing = [(keys, now) for _, now in became for keys, n in kept if n is None]
    parts = [
        (keys, now * n // full)
        for full, now in became
        for keys, n in kept
        if n and n != full and full % n == 0 and now * n % full == 0
    ]
    moving: list[_BuiltModel] = []  # the trials that changed any size
    for some in (whole, missing, parts):
        made = list(attempts(best.numbers | {keys: n} for keys, n in dict.fromkeys(some)))
        moving += [attempt for attempt in made if attempt.sizes != best.sizes]
        yield made
    yield attempts(one.numbers | other.numbers for one, other in itertools.combinations(moving, 2))


def _changed(config: Any, numbers: ConfigNumbers) -> Any:
    copies: dict[int, Any] = {}
    for keys, number in numbers.items():
        config = with_number(config, keys, number, copies)
    return config


def _is_config(value: Any) -> bool:
    return callable(getattr(value, "to_dict", None))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _numbers_to_set(model: nn.Module, found: _BuiltModel) -> Iterator[tuple[nn.Module, Keys, int]]:
    """Yield the numbers to write into the configs of a model's modules, from the configs of the built model."""
    last, modules = {keys[-1] for keys in found.numbers}, dict(found.built.named_modules())
    ours: dict[int, Found] = {}
    theirs: dict[int, Found] = {}
    for path, module in model.named_modules():
        new = numbers_of(modules[path], theirs)
        for keys, n in numbers_of(module, ours).items():
            now = new.get(keys)
            if keys[-1] in last and _is_config(vars(module)[keys[0]]) and now is not None and now != n:
                yield module, keys, now


def _take_tensors(model: nn.Module, built: nn.Module) -> bool:
    """Put the tensors of a model into a built one; return False if tensors that it computes itself differ."""
    values, state = dict(_tensors(model)), model.state_dict().keys()
    for name, w in list(_tensors(built)):
        if name not in state and (w.is_meta or not torch.equal(w, values[name].cpu())):
            return False
    for path, module in built.named_modules():
        for kept in (module._parameters, module._buffers):
            for name in [name for name, w in kept.items() if w is not None]:
                kept[name] = values[f"{path}.{name}".lstrip(".")]
    return True
