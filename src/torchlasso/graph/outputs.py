"""The outputs of a model in a precision, without dropout and with the same random numbers each time."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from torchlasso._core.running import ExampleInputs, run_once, tensors_in
from torchlasso.graph.precision import DOUBLE, Precision

DROPOUT = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "alpha_dropout_",
           "feature_dropout", "feature_dropout_", "feature_alpha_dropout", "feature_alpha_dropout_")  # fmt: skip


class _NoDropout(TorchFunctionMode):
    """A mode without dropout, which would differ between models of different sizes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if name in DROPOUT:
            return args[0] if args else kwargs["input"]
        if "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
        elif name == "scaled_dot_product_attention" and len(args) > 4:
            args = (*args[:4], 0.0, *args[5:])
        return func(*args, **kwargs)


def run(
    model: nn.Module,
    inputs: ExampleInputs,
    training: bool,
    precision: Precision = DOUBLE,
    seed: int = 0,
    mode: TorchFunctionMode | None = None,
) -> list[Tensor]:
    """Run a model once and return its outputs, as a list of tensors.

    Args:
        model: a model in this precision; it is not changed, even if it keeps state between calls.
        inputs: its inputs; they are not changed.
        training: whether to run it in training mode.
        precision: the precision of the run.
        seed: the seed of all random numbers.
        mode: another mode for the calls of torch's functions.
    """
    within = precision.running(), _NoDropout(), mode or contextlib.nullcontext()
    return tensors_in(run_once(model, precision.tensors(inputs), training=training, seed=seed, within=within))
