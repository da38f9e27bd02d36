"""Compare the outputs of two models: on the example, on random inputs, at other sizes, in evaluation and training."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso.graph.other_sizes import at_other_sizes
from torchlasso.graph.precision import DOUBLE, Precision
from torchlasso.graph.running import repeatable, throwaway
from torchlasso.graph.tracing import Inputs, as_arguments, first_line

DROPOUT = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
           "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_")  # fmt: skip

# Random tensors, and a number for all of their elements: of the uniform, the normal and the Bernoulli distribution.
EVEN = {"rand": 0.37, "rand_like": 0.37, "randn": 0.73, "randn_like": 0.73, "bernoulli": 1, "bernoulli_": 1}


class _NoDropout(TorchFunctionMode):
    """Nothing is dropped, since that would differ between models of different sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in DROPOUT:
            return args[0] if args else kwargs["input"]
        if "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
        elif name == "scaled_dot_product_attention" and len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        return func(*args, **kwargs)


class _EvenNoise(TorchFunctionMode):
    """Random tensors have one number in all places: it is the same for models of different sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        number = EVEN.get(getattr(func, "__name__", ""))
        return found.fill_(number) if number is not None and isinstance(found, Tensor) else found


def run(
    model: nn.Module, inputs: Inputs, training: bool, precision: Precision = DOUBLE, seed: int = 0, even: bool = False
) -> list[Tensor]:
    """Return the tensors that a model gives, without dropout and with the same random numbers each time.

    Args:
        model: in this precision; it is not changed, whatever it keeps between calls.
        inputs: of the model; likewise.
        training: run it in training, or in evaluation.
        precision: of the run.
        seed: of all random numbers.
        even: let random tensors have one number in all places.
    """
    args, kwargs = precision.tensors(as_arguments(inputs))
    model = throwaway(model).train(training)
    noise = _EvenNoise() if even else contextlib.nullcontext()
    with torch.no_grad(), repeatable(seed), precision.running(), _NoDropout(), noise:
        found = model(*args, **kwargs)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference between the elements of two lists of tensors, relative to the largest element, if > 1."""
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return math.inf
    worst = 0.0
    for x, y in zip(ours, theirs, strict=True):
        if not x.is_floating_point():
            worst = worst if torch.equal(x, y) else math.inf
        elif x.numel():
            same = (x == y) | (x.isnan() & y.isnan())  # infinities, as of masks, too
            apart = torch.where(same, 0.0, x - y).abs().nan_to_num(nan=math.inf, posinf=math.inf)
            largest = torch.where(x.isfinite(), x, 0.0).abs().max().clamp_min(1.0)
            worst = max(worst, float(apart.max() / largest))
    return worst


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
    """Inputs for a model, and its outputs for them."""

    inputs: Inputs
    training: bool
    outputs: list[Tensor]


class Reference:
    """A model that others are compared with, run once in each situation.

    Args:
        model: in this precision; it is not changed.
        example_inputs: of the model.
        precision: to run all models in.

    Attributes:
        why_not_trained: why nothing is compared in training; an empty string if it is.
        random: whether outputs were left out that depend on random numbers.
    """

    def __init__(self, model: nn.Module, example_inputs: Inputs, precision: Precision) -> None:
        self.model, self.example_inputs, self.precision = model, example_inputs, precision
        self.why_not_trained, self.random = "", False
        self._beyond: dict[int, list[Situation]] = {}

    def given(self, model: nn.Module, situation: Situation) -> list[Tensor]:
        """Run another model in a situation."""
        return run(model, situation.inputs, situation.training, self.precision)

    @cached_property
    def evaluated(self) -> list[Situation]:
        """The example, and inputs of other sizes if the model accepts any, in evaluation."""
        return [Situation(self.example_inputs, False, self._evaluate(self.example_inputs)), *self.beyond(0)]

    def beyond(self, size: int) -> list[Situation]:
        """Inputs of other sizes than the example, larger than this one if the model accepts any, in evaluation."""
        if size not in self._beyond:
            other = at_other_sizes(self.example_inputs, self._evaluate, size)
            self._beyond[size] = [Situation(other[0], False, other[1])] if other else []
        return self._beyond[size]

    def _evaluate(self, inputs: Inputs) -> list[Tensor]:
        return run(self.model, inputs, False, self.precision)

    @cached_property
    def repeated(self) -> list[Situation]:
        """Random inputs, and training. What the model cannot run, as training without a target, is left out."""
        found = []
        likely = others_like(self.example_inputs)
        for inputs, training in ((likely, False), (self.example_inputs, True), (likely, True)):
            try:
                found.append(Situation(inputs, training, run(self.model, inputs, training, self.precision)))
            except Exception as error:  # of any kind: it is the model's own code
                self.why_not_trained = first_line(error) if training else ""
        if any(situation.training for situation in found):
            self.why_not_trained = ""
        return found

    def misses(self, model: nn.Module, situation: Situation) -> str:
        """Run another model in a situation and say in what it differs; an empty string if in nothing."""
        try:
            worst = difference(situation.outputs, self.given(model, situation))
            if worst > self.precision.tolerance and not all(map(Tensor.all, self._repeats(situation, even=False))):
                worst = self._difference_without_noise(model, situation)
        except Exception as error:  # of any kind: it is the model's own code
            return first_line(error)
        return f"the outputs differ by {worst:.1e}" if worst > self.precision.tolerance else ""

    def _difference_without_noise(self, model: nn.Module, situation: Situation) -> float:
        """Compare with one random number in all places; elements that are still random are left out."""
        arguments = situation.inputs, situation.training, self.precision
        ours, theirs = (run(each, *arguments, even=True) for each in (self.model, model))
        worst = difference(ours, theirs)
        if worst > self.precision.tolerance and [x.shape for x in ours] == [x.shape for x in theirs]:
            same = self._repeats(situation, even=True)
            self.random = self.random or not all(map(Tensor.all, same))
            worst = difference(*([x[mask] for x, mask in zip(each, same, strict=True)] for each in (ours, theirs)))
        return worst

    def _repeats(self, situation: Situation, even: bool) -> list[Tensor]:
        """Return which elements of the outputs are the same with other random numbers."""
        arguments = self.model, situation.inputs, situation.training, self.precision
        one, other = (run(*arguments, seed=seed, even=even) for seed in (0, 1))
        return [
            (x == y) | (x.isnan() & y.isnan()) if x.shape == y.shape else torch.zeros(x.shape, dtype=torch.bool)
            for x, y in zip(one, other, strict=True)
        ]

    def disagreements(self, model: nn.Module) -> Iterator[tuple[Situation, str]]:
        """Run another model in the situations that are not those of a search, and yield those in which it differs."""
        for situation in self.repeated:
            error = self.misses(model, situation)
            if error:
                yield situation, error


def disagreement(model: nn.Module, other: nn.Module, inputs: Inputs) -> str:
    """Say in what two models differ in float64 in evaluation, on the inputs or on others like them.

    Args:
        model, other: are not changed.
        inputs: those of the models.

    Returns:
        An empty string if they differ in nothing.
    """
    reference, copied = Reference(DOUBLE.copied(model), inputs, DOUBLE), DOUBLE.copied(other)
    situations = (s for s in (*reference.evaluated, *reference.repeated) if not s.training)
    return next((error for s in situations if (error := reference.misses(copied, s))), "")
