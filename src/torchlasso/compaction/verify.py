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

from torchlasso._core.running import ExampleInputs, seed_torch
from torchlasso._core.text import first_line
from torchlasso.graph.other_sizes import MeaninglessError, at_other_sizes
from torchlasso.graph.outputs import run
from torchlasso.graph.precision import DOUBLE, Precision

# The functions that draw random tensors, each with a number of its distribution that replaces all elements.
EVEN = {"rand": 0.37, "rand_like": 0.37, "randn": 0.73, "randn_like": 0.73, "bernoulli": 1, "bernoulli_": 1}

# Functions that multiply and add up. The error of their results is several times the rounding of the numbers they read.
ADDED_UP = ("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "baddbmm", "mv", "einsum", "sum",
            "mean", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
            "scaled_dot_product_attention", "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm",
            "multi_head_attention_forward")  # fmt: skip
ROUNDED = 16


class _EvenNoise(TorchFunctionMode):
    """A mode in which all elements of a random tensor are equal, so that models of different sizes get the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        number = EVEN.get(getattr(func, "__name__", ""))
        return found.fill_(number) if number is not None and isinstance(found, Tensor) else found


class _Rounding(TorchFunctionMode):
    """A mode that changes each number that is multiplied and added up by as much as rounding may."""

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
        ours, theirs: the tensors, compared in pairs; if any shapes differ, the result is infinity.
        least: a lower bound for the largest element of each pair; 0 by default.
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
    if not apart.isfinite():  # equal infinities, as in masks, count as equal, and so do two NaN
        same = (x == y) | (x.isnan() & y.isnan())
        apart = torch.where(same, 0.0, x - y).abs().nan_to_num(nan=math.inf, posinf=math.inf).max()
        largest = torch.where(x.isfinite(), x, 0.0).abs().max()
    return float(apart), float(largest)


def others_like(inputs: ExampleInputs) -> ExampleInputs:
    """Return random inputs: normal numbers of the same mean and deviation, and whole numbers in another order."""

    def other(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.numel() < 2 or leaf.dtype == torch.bool:
            return leaf
        if not leaf.is_floating_point():
            return leaf.flatten()[torch.randperm(leaf.numel())].reshape(leaf.shape)
        values = leaf.double()
        noise = torch.randn(leaf.shape, dtype=torch.float64).to(leaf.device)
        return (values.mean() + values.std() * noise).to(leaf.dtype)

    with torch.random.fork_rng():
        seed_torch(1)
        return tree_map(other, inputs)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Situation:
    """Inputs of a model, random or with the values of the example, and its outputs for them."""

    inputs: ExampleInputs
    training: bool
    outputs: list[Tensor]
    random: bool = False

    @property
    def finite(self) -> bool:
        """True if all outputs are finite, so that a comparison of them is meaningful."""
        return all(bool(x.isfinite().all()) for x in self.outputs)


def _shapes(of: Any) -> tuple[torch.Size, ...]:
    return tuple(leaf.shape for leaf in tree_leaves(of) if isinstance(leaf, Tensor))


class Reference:
    """A model with which others are compared; it runs once in each situation.

    Args:
        model: a model in this precision; it is not changed.
        example_inputs: its example inputs.
        precision: the precision in which all models run.
        outputs: the outputs of the model on the example, if they are known.

    Attributes:
        why_not_trained: why nothing is compared in training; an empty string if something is.
        random: whether outputs that depend on random numbers were left out.
    """

    def __init__(
        self, model: nn.Module, example_inputs: ExampleInputs, precision: Precision, outputs: list[Tensor] | None = None
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
        """Yield situations in evaluation: the example, and inputs of other sizes if the model accepts any.

        Args:
            size: also yield inputs that are larger than this, if the model accepts them.
        """
        yield self._evaluate(self.example_inputs)
        yield from self.beyond(0)
        known = [_shapes(situation.inputs) for situation in self.beyond(0)]
        yield from (s for s in (self.beyond(size) if size else ()) if _shapes(s.inputs) not in known)

    def beyond(self, size: int) -> list[Situation]:
        """Return a situation of another size than the example, larger than this if the model accepts it, or none.

        Its inputs are random. If the model refuses random inputs, or its outputs for them are not finite, they have the
        values of the example.
        """
        if size not in self._beyond:
            first = self._likely, self._evaluate_likely
            other = at_other_sizes(self.example_inputs, self._evaluate, size, first)
            self._beyond[size] = [other[1]] if other else []
        return self._beyond[size]

    def _evaluate(self, inputs: ExampleInputs, random: bool = False) -> Situation:
        """Run the model in evaluation, once for each shape of inputs with random values or values of the example."""
        key = random, _shapes(inputs)
        if key not in self._outputs:
            self._outputs[key] = run(self.model, inputs, False, self.precision)
        return Situation(inputs, False, self._outputs[key], random)

    def _evaluate_likely(self, inputs: ExampleInputs) -> Situation:
        found = self._evaluate(inputs, random=True)
        if not found.finite:
            raise MeaninglessError("the outputs for random inputs are not finite")
        return found

    @cached_property
    def likely(self) -> list[Situation]:
        """Random inputs in evaluation; empty if inputs of other sizes are random already, or the model refuses them."""
        known = any(situation.random for situation in self.beyond(0))
        return [] if known else self._tried(self._likely, False)

    @cached_property
    def trained(self) -> list[Situation]:
        """Random inputs in training, and the example if those are not meaningful; empty if the model refuses both."""
        found: list[Situation] = []
        for inputs in (self._likely, self.example_inputs):
            if not any(situation.finite for situation in found):
                found += self._tried(inputs, True)
        if found:
            self.why_not_trained = ""
        return found

    def _tried(self, inputs: ExampleInputs, training: bool) -> list[Situation]:
        """Return the situation of a run in a list; an empty list if the model fails, such as without a target."""
        try:
            return [Situation(inputs, training, run(self.model, inputs, training, self.precision))]
        except Exception as error:  # of any kind: it is the model's own code
            self.why_not_trained = first_line(error) if training else self.why_not_trained
            return []

    def differs(self, situation: Situation, given: list[Tensor]) -> float:
        """Return the difference of other outputs from the model's, relative to the largest; 0 if rounding explains it.

        Where numbers cancel, the result may be as small as the rounding of the terms. So if small outputs differ a
        little, the model runs once more with all numbers changed by as much as rounding may.
        """
        worst, tolerance = difference(situation.outputs, given), self.precision.tolerance
        if worst <= tolerance or difference(situation.outputs, given, [1.0] * len(given)) > tolerance:
            return worst
        off = run(self.model, situation.inputs, situation.training, self.precision, mode=_Rounding())
        pairs = zip(situation.outputs, off, strict=True)
        noise = [float((x - y).abs().nan_to_num(0, 0, 0).max()) if x.is_floating_point() else 0.0 for x, y in pairs]
        return difference(situation.outputs, given, [n / tolerance for n in noise])

    def misses(self, model: nn.Module, situation: Situation) -> str:
        """Run another model in a situation, and describe the difference; an empty string if there is none."""
        try:
            worst = self.differs(situation, self.given(model, situation))
            if worst > self.precision.tolerance and not all(map(Tensor.all, self._repeats(situation, even=False))):
                worst = self._difference_without_noise(model, situation)
        except Exception as error:  # of any kind: it is the model's own code
            return first_line(error)
        if worst == math.inf:
            return "the outputs have other shapes, are other whole numbers, or are not finite"
        return f"the outputs differ by {worst:.1e}" if worst > self.precision.tolerance else ""

    def _difference_without_noise(self, model: nn.Module, situation: Situation) -> float:
        """Compare with equal elements in each random tensor; outputs that are still random are left out."""
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
        """Return masks of the elements of the outputs that stay the same with other random numbers."""
        arguments = self.model, situation.inputs, situation.training, self.precision
        one, other = (run(*arguments, seed=seed, mode=_EvenNoise() if even else None) for seed in (0, 1))
        return [
            (x == y) | (x.isnan() & y.isnan()) if x.shape == y.shape else torch.zeros(x.shape, dtype=torch.bool)
            for x, y in zip(one, other, strict=True)
        ]

    def disagreements(self, model: nn.Module) -> Iterator[tuple[Situation, str]]:
        """Run another model in the situations that a search does not run, and yield those in which it differs."""
        for situation in self._others():
            error = self.misses(model, situation)
            if error:
                yield situation, error

    def _others(self) -> Iterator[Situation]:
        yield from self.likely
        yield from self.trained


def disagreement(model: nn.Module, other: nn.Module, inputs: ExampleInputs) -> str:
    """Describe the difference of two models in evaluation, in float64, on the inputs and on others like them.

    Args:
        model, other: the models; they are not changed.
        inputs: their inputs.

    Returns:
        An empty string if there is no difference.
    """
    reference, copied = Reference(DOUBLE.copied(model), inputs, DOUBLE), DOUBLE.copied(other)
    situations = itertools.chain(reference.evaluated(), reference.likely)
    return next((error for s in situations if (error := reference.misses(copied, s))), "")
