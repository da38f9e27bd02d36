"""Search for inputs of other sizes that a model accepts: another batch, length or resolution."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from torchlasso._core.running import ExampleInputs

TensorDim = tuple[int, int]  # a tensor, by its number among the leaves of the inputs, and one of its dimensions
T = TypeVar("T")


class MeaninglessError(ValueError):
    """An error of a run whose outputs say nothing, while other values of the same sizes may give some that do."""


MULTIPLE = 32  # many models accept only multiples of 32, or of a smaller power of two


def at_other_sizes(
    example_inputs: ExampleInputs,
    run: Callable[[ExampleInputs], T],
    beyond: int = 0,
    first: tuple[ExampleInputs, Callable[[ExampleInputs], T]] | None = None,
) -> tuple[ExampleInputs, T] | None:
    """Find inputs of other sizes that a model accepts, and return them with its outputs.

    As many sizes as possible differ from the example: the batch, a length, the height and the width of an image. The
    new sizes also differ from one another. Dimensions of equal size change together, such as the length of a sequence
    and of its mask. If the model refuses that, only dimensions at one place of the shapes change, or dimensions of one
    tensor. A size grows, or shrinks if the model accepts no larger one. The values of the inputs are repeated from the
    start, so whole numbers keep their range, and masks stay masks.

    Args:
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
        run: a function that runs the model on such inputs; sizes for which it raises an error are not accepted. It
            should run on the CPU, where an index out of range is an error that can be caught.
        beyond: a length or resolution has to be larger than this, if the model accepts it.
        first: inputs with other values that are tried before the example at each size, and the function that runs
            them; it raises :class:`MeaninglessError` where the example is to be tried in any case.

    Returns:
        The inputs and the outputs; None if the model accepts no other size.

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
        >>> x, y = at_other_sizes(torch.zeros(2, 3, 8, 8), net)
        >>> tuple(x.shape), tuple(y.shape)
        ((3, 3, 9, 10), (3, 2))
    """
    search = _SizeSearch([*([first] if first else []), (example_inputs, run)], beyond)
    for places in search.change_at_once(_apart(list(search.sizes), search.sizes.__getitem__)):
        search.change(places)
    return search.accepted


class _SizeSearch(Generic[T]):
    """A search for sizes that a model accepts, with the sizes accepted so far."""

    def __init__(self, tries: list[tuple[ExampleInputs, Callable[[ExampleInputs], T]]], beyond: int) -> None:
        self.tries, self.beyond = tries, beyond
        self.sizes: dict[TensorDim, int] = {
            (i, k): size
            for i, leaf in enumerate(tree_flatten(tries[0][0])[0])
            if isinstance(leaf, Tensor)
            for k, size in enumerate(leaf.shape)
            if size
        }
        self.accepted: tuple[ExampleInputs, T] | None = None
        self.least, self.harmless = dict(self.sizes), False  # whether no value of the first inputs is refused

    def change_at_once(self, groups: list[list[TensorDim]]) -> list[list[TensorDim]]:
        """Change all groups of equal sizes in one run, or all but one; return the groups that did not change."""
        for left in ([], *([group] for group in groups)) if len(groups) > 1 else ():
            sizes: dict[TensorDim, int] = {}
            for places in (group for group in groups if group not in left):
                size = self.sizes[places[0]]
                for part in _apart(places, lambda place: place[1]):  # no two are equal afterwards
                    size = self.candidates(part, size)[0]
                    sizes |= dict.fromkeys(part, size)
            if self.accepts(sizes):
                return left
        return groups

    def change(self, places: list[TensorDim]) -> None:
        """Change these equal sizes together, if the model accepts it; then change parts of them separately."""
        size = self.sizes[places[0]]
        together = any(self.accepts(dict.fromkeys(places, other)) for other in self.candidates(places, size))
        parts = _apart(places, lambda place: place[1])
        if together:
            for part in parts[1:]:  # so that they differ from the first part
                near = self.candidates(part, max(self.sizes[place] for place in places))[:2]
                any(self.accepts(dict.fromkeys(part, other)) for other in (*near, size))
        else:
            parts = parts if len(parts) > 1 else _apart(places, lambda place: place[0])
            for part in parts if len(parts) > 1 else ():
                self.change(part)

    def candidates(self, places: Iterable[TensorDim], size: int) -> list[int]:
        """Return other sizes to try; first the sizes that cost little and that most models accept."""
        larger = _larger(size)
        if size <= self.beyond and any(dim for _, dim in places):  # a batch need not be as long
            larger = [*_larger(self.beyond), *larger]
        return [other for other in dict.fromkeys([*larger, size - 1, size // 2]) if other > 0]

    def accepts(self, sizes: dict[TensorDim, int]) -> bool:
        """Try sizes together with those accepted so far, and return whether the model accepts them."""
        sizes = self.sizes | sizes
        first = range(len(self.tries) - 1)
        for number, (values, run) in enumerate(self.tries):
            leaves, spec = tree_flatten(values)
            for (i, k), new in sizes.items():
                leaves[i] = _resized(leaves[i], k, new)
            inputs = tree_unflatten(leaves, spec)
            try:
                with warnings.catch_warnings(), torch.random.fork_rng(), torch.no_grad():
                    warnings.simplefilter("ignore")  # trials with wrong sizes may cause warnings
                    outputs = run(inputs)
            except MeaninglessError:
                continue
            except Exception:  # of any kind: it is the model's own code
                # other values are of no use if these, repeated from the start at every size, are not what it refuses
                if number in first and self.harmless:
                    return False
                continue
            self.harmless |= number in first and all(sizes[place] >= size for place, size in self.least.items())
            self.sizes, self.accepted = sizes, (inputs, outputs)
            return True
        return False


def _larger(size: int) -> list[int]:
    """Return larger sizes; the second one is a multiple of the same power of two, up to a limit."""
    return [size + 1, size + math.gcd(size, MULTIPLE), 2 * size]


def _apart(places: list[TensorDim], key: Callable[[TensorDim], int]) -> list[list[TensorDim]]:
    """Group places by a key."""
    found: dict[int, list[TensorDim]] = {}
    for place in places:
        found.setdefault(key(place), []).append(place)
    return list(found.values())


def _resized(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Return a tensor of another size along a dimension, with the values repeated from the start."""
    if size == tensor.shape[dim]:
        return tensor
    return tensor.index_select(dim, torch.arange(size, device=tensor.device) % tensor.shape[dim])
