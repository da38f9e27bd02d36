"""The losses that have a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from torchlasso.training.survival import cox

Loss = Callable[[Tensor, Tensor], Tensor]

LOSSES: Mapping[str, Loss] = {
    "cross-entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "cox": cox,
}
