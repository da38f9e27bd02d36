"""Do two models give the same outputs?"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso.graph.tracing import Inputs, as_arguments, in_double

DROPOUT = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
           "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_")  # fmt: skip


class NoDropout(TorchFunctionMode):
    """Nothing is dropped, since what is would differ between models of different sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in DROPOUT:
            return args[0] if args else kwargs["input"]
        if "dropout_p" in kwargs:
            kwargs["dropout_p"] = 0.0
        return func(*args, **kwargs)


def run(model: nn.Module, inputs: Inputs, training: bool) -> list[Tensor]:
    """The tensors that a model gives, without dropout and with the same random numbers each time."""
    args, kwargs = in_double(as_arguments(inputs))
    with torch.no_grad(), torch.random.fork_rng(), NoDropout():
        torch.manual_seed(0)
        found = model.train(training)(*args, **kwargs)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def difference(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference between the elements of two lists of tensors, relative to the largest element, if > 1."""
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return math.inf
    worst = 0.0
    for x, y in zip(ours, theirs, strict=True):
        if x.numel() and x.is_floating_point():
            same = (x == y) | (x.isnan() & y.isnan())  # infinities, as of masks, too
            apart = torch.where(same, 0.0, x - y).abs()
            worst = max(
                worst,
                float(apart.max())
                / max(
                    1.0,
                    float(
                        x[x.isfinite()].abs().max(),
                    ),
                ),
            )
        elif not torch.equal(x, y):
            return math.inf
    return worst if worst == worst else math.inf


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


def worst_difference(model: nn.Module, other: nn.Module, inputs: Inputs) -> float:
    """The largest difference between two models in float64: on the inputs and on others, in evaluation and training.

    Args:
        model, other: are not changed.
        inputs: those of the models. Where the first model cannot be trained on them, as with batch normalisation on a
            single row, evaluation is all that is compared.
    """
    pair = [copy.deepcopy(each).double() for each in (model, other)]
    worst = 0.0
    for training in (False, True):
        for given in (inputs, others_like(inputs)):
            try:
                wanted = run(pair[0], given, training)
            except ValueError:
                if training:
                    return worst
                raise
            worst = max(worst, difference(wanted, run(pair[1], given, training)))
    return worst
