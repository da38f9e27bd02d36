"""Linear layers that multiply by nonzero weights only."""

from __future__ import annotations

import torch
from torch import Tensor

from torchlasso.inference.compiled import applies, multiply_vector, sum_products
from torchlasso.inference.matrix import InferenceModule, SparseMatrix

WIDTH = 64  # columns multiplied at a time: a larger part of the input would leave the cache before it is read again
FEW = 2  # up to this many columns, products with vectors are faster than a product with a matrix
MANY = 16  # from this many columns on, the compiled function can use vectors


class SparseLinear(InferenceModule):
    """A linear layer y = x Wᵀ + b with a sparse W: W is multiplied by transposed inputs, which is fast in MKL.

    Args:
        weight: W, (outputs, inputs).
        bias: b, (outputs,).
        block: see :class:`SparseMatrix`.
        compiled: whether compiled functions are used for one, two and for many rows, if they apply; they need single
            entries.

    Examples:
        >>> SparseLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0]]), torch.ones(2))(torch.tensor([1.0, 10.0]))
        tensor([21.,  1.])
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, block: int = 1, compiled: bool = False) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.matrix, self.compiled = SparseMatrix(weight, block, narrow=compiled), compiled
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """W as a sparse tensor of torch, for models that read its dtype or multiply by it."""
        return self.matrix.tensor()

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.in_features)
        if 0 < len(rows) <= FEW:
            y = torch.stack([self._with_vector(row) for row in rows])
        else:
            y = torch.cat([self._product(part.t()).t() for part in torch.split(rows, WIDTH)])
        return y.reshape(*input.shape[:-1], self.out_features)

    def _with_vector(self, row: Tensor) -> Tensor:
        if self.compiled and applies(row, self.matrix):
            return multiply_vector(self.matrix, row.contiguous(), self.bias)
        product: Tensor = self.matrix(row, self.bias)
        return product

    def _product(self, columns: Tensor) -> Tensor:
        if self.compiled and columns.shape[1] >= MANY and applies(columns, self.matrix):
            out = columns.new_empty(1, self.out_features, columns.shape[1])
            sum_products(self.matrix, [columns.contiguous()[None]], [0], columns.shape[1], self.bias, out)
            return out[0]
        product: Tensor = self.matrix(columns, None if self.bias is None else self.bias[:, None])
        return product

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
