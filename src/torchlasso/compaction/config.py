"""The config that a model of transformers is built from, kept true where a config can say how large the model is now.

No architecture is known here. Numbers of the config are tried, on a model without values, until one is built that has
all tensors and numbers of the smaller model and computes the same outputs.
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
from torchlasso._core.running import Inputs, repeatable, run_once, tensors_in
from torchlasso.compaction.numbers import Found, Keys, numbers_in, numbers_of, set_numbers_, with_number
from torchlasso.compaction.resizing import Resizing, noting
from torchlasso.compaction.verify import difference

TOLERANCE = 1e-5  # of outputs in the model's own precision, relative to the largest; nearly always they are equal
MOST_BUILT = 64  # models without values that are built to find a config

ConfigNumbers = dict[Keys, int]  # of a config
UNTRUE = (
    "config cannot say these sizes, so from_pretrained cannot build this model: build the full one from the config, "
    "and torchlasso.load what torchlasso.save wrote"
)


@uncollected()
def update_config_(model: nn.Module, example_inputs: Inputs) -> str:
    """Make the config of a model that became smaller true, where that is possible.

    Returns:
        The numbers that were changed, or that it is not possible; an empty string where there is nothing to change.
    """
    config, cut = vars(model).get("config"), Resizing.of(model)
    if not (_is_config(config) and cut.tensors):
        return ""
    wanted, old = functools.cache(lambda: _outputs(model, example_inputs)), dict(numbers_in(config))
    for found in _fitting(model, config, cut):
        with noting(model):
            outputs = wanted()  # before anything of it changes
            undo = set_numbers_(model, _numbers_to_set(model, found))
            if _share(model, found.built) and all(
                _same(outputs, each, example_inputs) for each in (model, found.built)
            ):
                return "; ".join(
                    f"config.{'.'.join(map(str, keys))}: {old[keys]} -> {n}" for keys, n in found.numbers.items()
                )
            undo()
    return UNTRUE


class _WithoutValues(TorchFunctionMode):
    """Tensors that are to be filled have no memory; what is computed from the config has its values."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = {**(kwargs or {}), "device": "meta"} if func is torch.empty else kwargs or {}
        return func(*args, **kwargs)


def _built(cls: type[nn.Module], config: Any) -> nn.Module | None:
    """Build a model from a config as it comes back from a file, without values; None where its own code refuses."""
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)  # a config that is only tried is not to be talked of
        with repeatable(), _WithoutValues():
            return cls(type(config).from_dict(config.to_dict()))
    except Exception:  # of any kind: it is the model's own code
        return None
    finally:
        logging.disable(level)


@dataclass(frozen=True)
class _Sizes:
    """The shapes of a model's tensors, and those numbers of its modules that changed when it became smaller."""

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
        """Return the names and places of what is not the same in another model."""
        shapes = {name for name in self.shapes | other.shapes if self.shapes.get(name) != other.shapes.get(name)}
        return shapes | {place for place, n in self.numbers.items() if n != other.numbers.get(place)}

    def became(self, other: _Sizes) -> list[tuple[int, int]]:
        """List the sizes that are others in another model, and what they are there, the most frequent first."""
        pairs: Counter[tuple[int | None, int | None]] = Counter()
        for name, shape in self.shapes.items():
            pairs.update(zip(shape, other.shapes.get(name, ()), strict=False))
        pairs.update((n, other.numbers.get(place)) for place, n in self.numbers.items())
        return [(full, now) for (full, now), _ in pairs.most_common() if full != now and full and now]

    def differ_where_alike(self, other: _Sizes) -> bool:
        """Return True if layers that are alike, but for their number in the path, are of different sizes in another."""
        now: dict[tuple[str, tuple[int, ...]], set[tuple[int, ...] | None]] = {}
        for name, shape in self.shapes.items():
            now.setdefault((re.sub(r"(?<=\.)\d+(?=\.)", "#", name), shape), set()).add(other.shapes.get(name))
        return any(len(shapes) > 1 for shapes in now.values())


@dataclass(frozen=True)
class _BuiltModel:
    """A model that was built: the numbers of its config that are others, its sizes, and those that are not right."""

    numbers: ConfigNumbers
    built: nn.Module
    sizes: _Sizes
    wrong: set[Any]


def _fitting(model: nn.Module, config: Any, cut: Resizing) -> Iterator[_BuiltModel]:
    """Yield models, without values, of the sizes of this one, with few numbers of the config changed."""
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
        for some in _steps(config, best, wanted, attempts):
            for attempt in some:
                if not attempt.wrong:
                    yield attempt
                elif len(attempt.wrong) < len((nearer or best).wrong) and attempt.wrong <= first.wrong:
                    nearer = attempt  # nothing that was right is wrong
            if nearer is not None:
                break
        best = nearer


def _steps(
    config: Any, best: _BuiltModel, wanted: _Sizes, attempts: Callable[[Iterable[ConfigNumbers]], Iterator[_BuiltModel]]
) -> Iterator[Iterable[_BuiltModel]]:
    """Yield what to try next: numbers that are a size, that are missing, that are a part of one, and pairs of them."""
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
    moving: list[_BuiltModel] = []  # what makes any difference
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
    """Yield what the configs of a model's modules have to say, as those of the one that was built do."""
    last, modules = {keys[-1] for keys in found.numbers}, dict(found.built.named_modules())
    ours: dict[int, Found] = {}
    theirs: dict[int, Found] = {}
    for path, module in model.named_modules():
        new = numbers_of(modules[path], theirs)
        for keys, n in numbers_of(module, ours).items():
            now = new.get(keys)
            if keys[-1] in last and _is_config(vars(module)[keys[0]]) and now is not None and now != n:
                yield module, keys, now


def _share(model: nn.Module, built: nn.Module) -> bool:
    """Give a model that was built the tensors of another, unless what it computes for itself is something else."""
    values, state = dict(_tensors(model)), model.state_dict().keys()
    for name, w in list(_tensors(built)):
        if name not in state and (w.is_meta or not torch.equal(w, values[name].cpu())):
            return False
    for path, module in built.named_modules():
        for kept in (module._parameters, module._buffers):
            for name in [name for name, w in kept.items() if w is not None]:
                kept[name] = values[f"{path}.{name}".lstrip(".")]
    return True


def _outputs(model: nn.Module, example_inputs: Inputs) -> list[Tensor]:
    return tensors_in(run_once(model, example_inputs))


def _same(wanted: list[Tensor], model: nn.Module, example_inputs: Inputs) -> bool:
    try:
        return difference(wanted, _outputs(model, example_inputs)) <= TOLERANCE
    except Exception:  # of any kind: it is the model's own code
        return False
