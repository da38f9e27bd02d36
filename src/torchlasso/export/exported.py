"""A model in the format of another runtime: its batches, and the comparison of its outputs with the original's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from torchlasso._core.running import ExampleInputs, as_arguments, quietly, undisturbed
from torchlasso.compaction.verify import difference
from torchlasso.graph.unexported import reason_of

KEY = "torchlasso"  # the key under which a file stores the metadata of a model, as JSON
BATCHES = (1, 3)  # the batch sizes at which an exported model is compared
LONG = 100  # the length at which one of texts is compared, if its texts may be so long
# Tolerances of outputs relative to the largest element: many layers add up numbers in another order.
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 5e-2}
TOLERANCE = 1e-4  # for all other types


class Exported(nn.Module):
    """An exported model, called like the original: in evaluation, on the CPU.

    Attributes:
        metadata: the entries stored with the model.
    """

    def __init__(self, function: Callable[..., Any], metadata: Mapping[str, Any]) -> None:
        super().__init__()
        self._function = function
        self.metadata = dict(metadata)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs.

        Raises:
            ValueError: the model cannot be run on these inputs.
        """
        try:
            return self._function(*args, **kwargs)
        except Exception as error:  # of any kind: the file defines the operators, and onnxruntime has its own classes
            raise ValueError(f"the exported model cannot be run on these inputs: {reason_of(error)}") from error


def batch_of(inputs: ExampleInputs, size: int) -> ExampleInputs:
    """Repeat the rows of inputs until the batch has this size."""
    rows = rows_of(inputs)

    def taken(leaf: Any) -> Any:
        if not has_rows(leaf, rows):
            return leaf
        return leaf[torch.arange(size, device=leaf.device) % rows].contiguous()

    return tree_map(taken, inputs)  # type: ignore[no-any-return]


def rows_between(inputs: ExampleInputs, start: int, stop: int) -> ExampleInputs:
    """Return the rows of inputs from one to before another."""
    rows = rows_of(inputs)
    return tree_map(lambda leaf: leaf[start:stop] if has_rows(leaf, rows) else leaf, inputs)  # type: ignore[no-any-return]


def rows_of(inputs: ExampleInputs) -> int:
    """Return the number of rows of inputs: the size of the first dimension of the first tensor.

    Raises:
        ValueError: no input has rows.
    """
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.dim() and len(leaf):
            return len(leaf)
    raise ValueError("example_inputs must hold a tensor with at least one row; there is none")


def has_rows(leaf: Any, rows: int) -> bool:
    """Return whether an input is a tensor whose first dimension is the batch."""
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == rows


def program_of(model: nn.Module, inputs: ExampleInputs, longest: int | None = None) -> torch.export.ExportedProgram:
    """Export a model in evaluation mode, for batches of any size, and of any length up to ``longest`` if it is given.

    Raises:
        ValueError: the model cannot be exported.
    """
    args, kwargs, shapes = for_any_batch(inputs, longest)
    try:
        with quietly(), undisturbed(model), torch.no_grad():
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except Exception as error:  # of any kind: the model's own code runs
        raise ValueError(f"the model cannot be exported: {reason_of(error)}") from error


def for_any_batch(inputs: ExampleInputs, longest: int | None = None) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return the positional and keyword arguments for an export, and their dimensions that are free.

    Args:
        inputs: of the model.
        longest: the largest size of dimension 1, which is then free; None if only the batch is.
    """
    inputs = batch_of(inputs, max(2, rows_of(inputs)))  # torch.export treats a size of 1 as fixed
    args, kwargs = as_arguments(inputs)
    rows, batch = rows_of(inputs), torch.export.Dim("batch")
    free = {0: batch} if longest is None else {0: batch, 1: torch.export.Dim("length", min=1, max=longest)}
    return args, kwargs, tree_map(lambda leaf: free if has_rows(leaf, rows) else None, kwargs or args)


def of_length(inputs: ExampleInputs, length: int) -> ExampleInputs:
    """Repeat the places of rows, dimension 1, until they have this length."""
    rows = rows_of(inputs)

    def taken(leaf: Any) -> Any:
        if not has_rows(leaf, rows):
            return leaf
        return leaf[:, torch.arange(length, device=leaf.device) % leaf.shape[1]].contiguous()

    return tree_map(taken, inputs)  # type: ignore[no-any-return]


def beyond_rounding(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Return how far outputs are apart, relative to the largest element, or 0 if rounding explains it."""
    ours, theirs = ([tensor.cpu() for tensor in tensors] for tensors in (ours, theirs))
    worst = difference(ours, theirs, [1.0] * len(ours))
    near = max(TOLERANCES.get(tensor.dtype, TOLERANCE) for tensor in (*ours, torch.empty(0)))
    return 0.0 if worst <= near else worst


def check(model: nn.Module, exported: nn.Module, inputs: ExampleInputs, longest: int | None = None) -> None:
    """Compare the outputs of both, in evaluation, on ``inputs`` and on batches of other sizes, and other lengths.

    Raises:
        RuntimeError: they differ by more than rounding.
    """
    lengths = () if longest is None else {1, min(LONG, longest)}
    others = (*(batch_of(inputs, size) for size in BATCHES), *(of_length(inputs, length) for length in lengths))
    for given in (inputs, *others):
        args, kwargs = as_arguments(given)
        with torch.no_grad(), undisturbed(model):
            ours, theirs = (tree_leaves(each(*args, **kwargs)) for each in (model, exported))
        ours, theirs = ([leaf for leaf in leaves if isinstance(leaf, Tensor)] for leaves in (ours, theirs))
        if worst := beyond_rounding(ours, theirs):
            raise RuntimeError(f"the exported model does not compute the same outputs: they differ by {worst:.1e}")
