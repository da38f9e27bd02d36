"""Regularisation of a training: changes to the inputs of its batches, and another loss to minimise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso._core.arguments import shown
from torchlasso.training.losses import Loss
from torchlasso.training.row_weights import CoxWeights, RowWeights
from torchlasso.training.rows import InputRows, evaluation_batches, input_batches

Transform = Callable[[Tensor], Tensor]  # the inputs of a batch ↦ the inputs to train on, of the same shape

COMMON = 0.25  # a value that is this share of all values, or more, is the background
ROWS, VALUES = 1024, 1 << 20  # the most rows, and values of a channel, in which a common value is counted


@dataclass(frozen=True)
class Regularisation:
    """Changes to a training that keep a model from overfitting. An evaluation makes none of them.

    Attributes:
        transforms: functions of the inputs of a batch, called in this order in every step, such as
            :class:`InputDropout` or :class:`RandomCrop`. They must draw from torch's generator to be the same again
            after a resume.
        loss: the loss to minimise, such as one with label smoothing; None for the trainer's own, which is the one
            that is reported in any case.
        weights: the weights of the training rows, whose loss is then minimised in the place of ``loss``.

    Examples:
        >>> from functools import partial
        >>> smoothed = partial(torch.nn.functional.cross_entropy, label_smoothing=0.1)
        >>> regularisation = Regularisation([lambda x: x + 0.1 * torch.randn_like(x)], smoothed)
        >>> regularisation.inputs(torch.zeros(2, 3)).count_nonzero()
        tensor(6)
    """

    transforms: Sequence[Transform] = ()
    loss: Loss | None = None
    weights: RowWeights | CoxWeights | None = None

    @property
    def is_plain(self) -> bool:
        """True if the trainer's own loss is minimised."""
        return self.loss is None and self.weights is None

    def minimised(self, loss: Loss, outputs: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        """Return what is minimised for some of the training rows.

        Args:
            loss: the trainer's own.
            outputs, y: outputs and targets of these rows.
            rows: their numbers.
        """
        if self.weights is not None:
            return self.weights(outputs, y, rows)
        return (self.loss or loss)(outputs, y)

    @torch.no_grad()
    def inputs(self, x: Tensor) -> Tensor:
        """Apply the transforms to the inputs of a batch.

        Raises:
            TypeError: a transform did not return a batch of the same shape.
        """
        for transform in self.transforms:
            new = transform(x)
            if not isinstance(new, Tensor) or new.shape != x.shape:
                raise TypeError(f"a transform must return a batch like {shown(x)}; it returned {shown(new)}")
            x = new
        return x


@torch.no_grad()
def background_of(x: InputRows) -> Tensor:
    """Return the background of each channel of images or of each feature of a table, (1, channels or features, …).

    The background is the most common value where at least a quarter of the values equal it, such as the black around
    a digit or the zeros of counts, and otherwise the mean. Values are counted in at most 1,024 rows.

    >>> background_of(torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 3.0], [4.0, 4.0], [5.0, 5.0]]))
    tensor([[0., 3.]])
    """
    channels, pixels = x.shape[1], x.shape[2:].numel()
    rows = max(1, min(ROWS, VALUES // pixels))
    some = x[:: -(-len(x) // rows)].transpose(0, 1).reshape(channels, -1)  # (channels, values)
    common = some.cpu().mode(dim=1, keepdim=True).values.to(x.device)
    share = (some == common).double().mean(dim=1)
    over = [0, *range(2, len(x.shape))]
    mean = _mean(x, over)
    return torch.where(share >= COMMON, common[:, 0], mean).view(1, -1, *[1] * (len(x.shape) - 2))


def _mean(x: InputRows, over: list[int]) -> Tensor:
    """Return the mean, the same to the bit of rows in memory and on a disk."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    for inputs in input_batches(x, evaluation_batches(x)):
        total += inputs.double().sum(dim=over)
    return (total / (len(x) * x.shape[2:].numel())).float()


def need_floats(what: str, x: Tensor) -> None:
    """Raise ``TypeError`` unless inputs are floating-point numbers."""
    if not x.is_floating_point():
        raise TypeError(
            f"{what} needs inputs that are floating-point numbers; got {x.dtype}, such as codes, tokens or bytes"
        )
