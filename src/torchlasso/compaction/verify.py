"""Do two models give the same outputs?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso.graph.precision import DOUBLE, Precision
from torchlasso.graph.running import repeatable, throwaway
from torchlasso.graph.tracing import Inputs, as_arguments, first_line

DROPOUT = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
           "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_")  # fmt: skip


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


def run(model: nn.Module, inputs: Inputs, training: bool, precision: Precision = DOUBLE) -> list[Tensor]:
    """Return the tensors that a model gives, without dropout and with the same random numbers each time.

    Args:
        model: in this precision; it is not changed, whatever it keeps between calls.
    """
    args, kwargs = precision.tensors(as_arguments(inputs))
    model = throwaway(model).train(training)
    with torch.no_grad(), repeatable(), precision.running(), _NoDropout():
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


def disagreement(
    model: nn.Module, other: nn.Module, inputs: Inputs, training: bool, precision: Precision = DOUBLE
) -> str:
    """In what two models differ in a precision, on the inputs or on others like them; an empty string if in nothing.

    Args:
        model, other: are not changed.
        inputs: those of the models. What the first model cannot run, such as batch normalization in training on a
            single row, or training without a target, is not compared.
        training: whether to compare them in training, or in evaluation.
    """
    pair = [precision.copied(each) for each in (model, other)]
    for given in (inputs, others_like(inputs)):
        try:
            wanted = run(pair[0], given, training, precision)
        except Exception:  # of any kind: it is the model's own code
            continue
        try:
            worst = difference(wanted, run(pair[1], given, training, precision))
        except Exception as error:  # likewise
            return first_line(error)
        if worst > precision.tolerance:
            return f"the outputs differ by {worst:.1e}"
    return ""
