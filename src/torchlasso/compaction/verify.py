"""Compare the outputs of two models: on the example, on random inputs, at other sizes, in evaluation and training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso._core.running import Inputs
from torchlasso._core.text import first_line
from torchlasso.graph.other_sizes import at_other_sizes
from torchlasso.graph.outputs import run
from torchlasso.graph.precision import DOUBLE, Precision

# Random tensors, and a number for all of their elements: of the uniform, the normal and the Bernoulli distribution.
EVEN = {"rand": 0.37, "rand_like": 0.37, "randn": 0.73, "randn_like": 0.73, "bernoulli": 1, "bernoulli_": 1}

# Functions that multiply and add up. Their results are off by some times the rounding of each number that they read.
ADDED_UP = ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "mv", "einsum", "sum",
            "mean", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
            "scaled_dot_product_attention", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
            "multi_head_attention_forward")  # fmt: skip
ROUNDED = 16


class _EvenNoise(TorchFunctionMode):
    """Random tensors have one number in all places: it is the same for models of different sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        number = EVEN.get(getattr(func, "__name__", ""))
        return found.fill_(number) if number is not None and isinstance(found, Tensor) else found


class _Rounding(TorchFunctionMode):
    """Each number that is multiplied and added up is off by as much as rounding may make it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = (
            (args, kwargs or {})
            if getattr(func, "__name__", "") not in ADDED_UP
            else tree_map(self._rounded, (args, kwargs or {}))
        )
        return func(*args, **kwargs)

    def _rounded(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        off = torch.randn_like(value)
        return value * (1 + ROUNDED * torch.finfo(off.dtype).eps * off)


def difference(ours: list[Tensor], theirs: list[Tensor], least: Sequence[float] = ()) -> float:
    """Return the largest difference between the elements of two lists of tensors, relative to the largest element.

    Args:
        ours, theirs: of which each is compared with one of the other list; infinity if they are of other shapes.
        least: a number for each that the largest element is taken for if it is smaller; 0 if there is none.
    """
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return math.inf
    worst = 0.0
    for x, y, floor in zip(ours, theirs, least or [0.0] * len(ours), strict=True):
        if not x.is_floating_point():
            worst = worst if torch.equal(x, y) else math.inf
        elif x.numel():
            apart, largest = _extremes(x, y)
            largest = max(largest, floor)
            worst = max(worst, apart / largest if largest else math.inf if apart else 0.0)
    return worst


def _extremes(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Return the largest difference between the elements of two tensors, and the largest finite one of the first."""
    apart, largest = (x - y).abs().max(), x.abs().max()
    if not apart.isfinite():  # equal infinities, as of masks, are alike, and so are elements that are not numbers
        same = (x == y) | (x.isnan() & y.isnan())
        apart = torch.where(same, 0.0, x - y).abs().nan_to_num(nan=math.inf, posinf=math.inf).max()
        largest = torch.where(x.isfinite(), x, 0.0).abs().max()
    return float(apart), float(largest)


def others_like(inputs: Inputs) -> Inputs:
    """Random inputs: normal numbers of the same mean and deviation, and whole numbers in another order."""

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.numel() < 2 or leaf.dtype == torch.bool:
            return leaf
        if not leaf.is_floating_point():
            return leaf.flatten()[torch.randperm(leaf.numel())].reshape(leaf.shape)
        values = leaf.double()
        noise = torch.randn(leaf.shape, dtype=torch.float64).to(leaf.device)
        return (values.mean() + values.std() * noise).to(leaf.dtype)

    with torch.random.fork_rng():
        torch.manual_seed(1)
        return tree_map(other, inputs)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Situation:
    """Inputs for a model, random or those of the example, and its outputs for them."""

    inputs: Inputs
    training: bool
    outputs: list[Tensor]
    random: bool = False

    @property
    def finite(self) -> bool:
        """Return whether all outputs are numbers, so that a comparison of them says something."""
        return all(bool(x.isfinite().all()) for x in self.outputs)


def _shapes(of: Any) -> tuple[torch.Size, ...]:
    return tuple(leaf.shape for leaf in tree_leaves(of) if isinstance(leaf, Tensor))


class Reference:
    """A model that others are compared with, run once in each situation.

    Args:
        model: in this precision; it is not changed.
        example_inputs: of the model.
        precision: to run all models in.
        outputs: of the model on the example, if they are known.

    Attributes:
        why_not_trained: why nothing is compared in training; an empty string if it is.
        random: whether outputs were left out that depend on random numbers.
    """

    def __init__(
        self, model: nn.Module, example_inputs: Inputs, precision: Precision, outputs: list[Tensor] | None = None
    ) -> None:
        self.model, self.example_inputs, self.precision = model, example_inputs, precision
        self.why_not_trained, self.random = "", False
        self._likely = others_like(example_inputs)
        self._beyond: dict[int, list[Situation]] = {}
        self._outputs = {} if outputs is None else {(False, _shapes(example_inputs)): outputs}

    def given(self, model: nn.Module, situation: Situation) -> list[Tensor]:
        """Run another model in a situation."""
        return run(model, situation.inputs, situation.training, self.precision)

    def evaluated(self, size: int = 0) -> Iterator[Situation]:
        """Yield inputs in evaluation: the example, and other sizes if the model accepts any.

        Args:
            size: one more is larger than this, if the model accepts it.
        """
        yield self._evaluate(self.example_inputs)
        yield from self.beyond(0)
        known = [_shapes(situation.inputs) for situation in self.beyond(0)]
        yield from (s for s in (self.beyond(size) if size else ()) if _shapes(s.inputs) not in known)

    def beyond(self, size: int) -> list[Situation]:
        """Return inputs of other sizes than the example, larger than this one if the model accepts any, or none.

        They are random, which the example is not; where the model refuses such or they say nothing, the example's.
        """
        if size not in self._beyond:
            first = self._likely, self._evaluate_likely
            other = at_other_sizes(self.example_inputs, self._evaluate, size, first)
            self._beyond[size] = [other[1]] if other else []
        return self._beyond[size]

    def _evaluate(self, inputs: Inputs, random: bool = False) -> Situation:
        """Run the model in evaluation, once for inputs of each shape with random values or those of the example."""
        key = random, _shapes(inputs)
        if key not in self._outputs:
            self._outputs[key] = run(self.model, inputs, False, self.precision)
        return Situation(inputs, False, self._outputs[key], random)

    def _evaluate_likely(self, inputs: Inputs) -> Situation:
        found = self._evaluate(inputs, random=True)
        if not found.finite:
            raise ValueError("the outputs for random inputs are not finite")
        return found

    @cached_property
    def likely(self) -> list[Situation]:
        """Random inputs in evaluation, unless those of other sizes are random, or the model cannot run on any."""
        known = any(situation.random for situation in self.beyond(0))
        return [] if known else self._tried(self._likely, False)

    @cached_property
    def trained(self) -> list[Situation]:
        """Random inputs in training; the example, too, if that says nothing. The model may be able to train on none."""
        found: list[Situation] = []
        for inputs in (self._likely, self.example_inputs):
            if not any(situation.finite for situation in found):
                found += self._tried(inputs, True)
        if found:
            self.why_not_trained = ""
        return found

    def _tried(self, inputs: Inputs, training: bool) -> list[Situation]:
        """Run the model, unless it cannot, as without a target in training."""
        try:
            return [Situation(inputs, training, run(self.model, inputs, training, self.precision))]
        except Exception as error:  # of any kind: it is the model's own code
            self.why_not_trained = first_line(error) if training else self.why_not_trained
            return []

    def differs(self, situation: Situation, given: list[Tensor]) -> float:
        """Return how far other outputs are from the model's, relative to the largest; what may be rounding is nothing.

        Where numbers cancel, the result may be as small as the rounding of what it was made of. So if outputs that are
        small differ by little, the model is run once more with numbers that are off by as much as they may be.
        """
        worst, tolerance = difference(situation.outputs, given), self.precision.tolerance
        if worst <= tolerance or difference(situation.outputs, given, [1.0] * len(given)) > tolerance:
            return worst
        off = run(self.model, situation.inputs, situation.training, self.precision, mode=_Rounding())
        pairs = zip(situation.outputs, off, strict=True)
        noise = [float((x - y).abs().nan_to_num(0, 0, 0).max()) if x.is_floating_point() else 0.0 for x, y in pairs]
        return difference(situation.outputs, given, [n / tolerance for n in noise])

    def misses(self, model: nn.Module, situation: Situation) -> str:
        """Run another model in a situation and say in what it differs; an empty string if in nothing."""
        try:
            worst = self.differs(situation, self.given(model, situation))
            if worst > self.precision.tolerance and not all(map(Tensor.all, self._repeats(situation, even=False))):
                worst = self._difference_without_noise(model, situation)
        except Exception as error:  # of any kind: it is the model's own code
            return first_line(error)
        if worst == math.inf:
            return "the outputs are of other shapes, or other whole numbers or not finite"
        return f"the outputs differ by {worst:.1e}" if worst > self.precision.tolerance else ""

    def _difference_without_noise(self, model: nn.Module, situation: Situation) -> float:
        """Compare with one random number in all places; elements that are still random are left out."""
        arguments = situation.inputs, situation.training, self.precision
        ours, theirs = (run(each, *arguments, mode=_EvenNoise()) for each in (self.model, model))
        worst = difference(ours, theirs)
        if worst > self.precision.tolerance and [x.shape for x in ours] == [x.shape for x in theirs]:
            same = self._repeats(situation, even=True)
            self.random = self.random or not all(map(Tensor.all, same))
            ours, theirs = ([x[mask] for x, mask in zip(each, same, strict=True)] for each in (ours, theirs))
            worst = difference(ours, theirs)
        return worst

    def _repeats(self, situation: Situation, even: bool) -> list[Tensor]:
        """Return which elements of the outputs are the same with other random numbers."""
        arguments = self.model, situation.inputs, situation.training, self.precision
        one, other = (run(*arguments, seed=seed, mode=_EvenNoise() if even else None) for seed in (0, 1))
        return [
            (x == y) | (x.isnan() & y.isnan()) if x.shape == y.shape else torch.zeros(x.shape, dtype=torch.bool)
            for x, y in zip(one, other, strict=True)
        ]

    def disagreements(self, model: nn.Module) -> Iterator[tuple[Situation, str]]:
        """Run another model in the situations that are not those of a search, and yield those in which it differs."""
        for situation in self._others():
            error = self.misses(model, situation)
            if error:
                yield situation, error

    def _others(self) -> Iterator[Situation]:
        yield from self.likely
        yield from self.trained


def disagreement(model: nn.Module, other: nn.Module, inputs: Inputs) -> str:
    """Say in what two models differ in float64 in evaluation, on the inputs or on others like them.

    Args:
        model, other: are not changed.
        inputs: those of the models.

    Returns:
        An empty string if they differ in nothing.
    """
    reference, copied = Reference(DOUBLE.copied(model), inputs, DOUBLE), DOUBLE.copied(other)
    situations = itertools.chain(reference.evaluated(), reference.likely)
    return next((error for s in situations if (error := reference.misses(copied, s))), "")
