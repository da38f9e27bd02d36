"""Linear layers with two zeros in each four weights, which some GPUs multiply by at twice the speed."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from torchlasso.inference.matrix import InferenceModule


class SemiStructuredLinear(InferenceModule):
    """y = x Wᵀ + b for a W on a CUDA device, of each four consecutive inputs of which at most two are not zero.

    Args:
        weight: W, (outputs, inputs).
        bias: b, (outputs,).

    Raises:
        RuntimeError: torch has no such product for this device, shape or precision.
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
    """Return whether of each four consecutive inputs at most two have a weight that is not zero.

    >>> import torch
    >>> fits(torch.tensor([[1.0, 0.0, 2.0, 0.0]])), fits(torch.tensor([[1.0, 3.0, 2.0, 0.0]]))
    (True, False)
    """
    return weight.shape[1] % 4 == 0 and bool((weight.reshape(-1, 4).count_nonzero(dim=1) <= 2).all())
