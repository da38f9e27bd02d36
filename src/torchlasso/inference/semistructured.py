"""Linear layers with 2:4 sparsity, which some GPUs multiply at up to twice the speed."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from torchlasso.inference.matrix import InferenceModule


class SemiStructuredLinear(InferenceModule):
    """A linear layer y = x Wᵀ + b on a CUDA device, with at most two nonzero weights in each four consecutive inputs.

    Args:
        weight: W, (outputs, inputs).
        bias: b, (outputs,).

    Raises:
        RuntimeError: torch has no such product for this device, shape or dtype.
    """

    any_precision: ClassVar[bool] = False
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(to_sparse_semi_structured(weight), requires_grad=False)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


def fits(weight: Tensor) -> bool:
    """Return whether at most two weights in each four consecutive inputs are nonzero.

    >>> import torch
    >>> fits(torch.tensor([[1.0, 0.0, 2.0, 0.0]])), fits(torch.tensor([[1.0, 3.0, 2.0, 0.0]]))
    (True, False)
    """
    return weight.shape[1] % 4 == 0 and bool((weight.reshape(-1, 4).count_nonzero(dim=1) <= 2).all())
