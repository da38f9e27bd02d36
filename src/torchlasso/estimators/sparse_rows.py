"""Tables for linear models, dense or sparse: of a sparse one, only the columns of a working set are made dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse import csc_array, issparse
from torch import Tensor


class LinearRows(Protocol):
    """The part of a matrix that linear problems need; a tensor has it."""

    @property
    def shape(self) -> Any:
        """The numbers of rows and of columns."""

    @property
    def mT(self) -> LinearRows:  # noqa: N802  # as of a tensor
        """The transposed matrix."""

    def __matmul__(self, other: Tensor, /) -> Tensor: ...
    def __getitem__(self, index: Any, /) -> Tensor: ...
    def __len__(self) -> int: ...
    def abs(self) -> LinearRows:
        """Return the matrix of absolute values."""


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix of double precision, whose products and columns are tensors.

    Examples:
        >>> rows = SparseRows(csc_array(np.array([[1.0, 0.0], [0.0, -2.0]])))
        >>> rows @ torch.tensor([[1.0], [1.0]]).double()
        tensor([[ 1.],
                [-2.]], dtype=torch.float64)
        >>> rows[:, [1]]
        tensor([[ 0.],
                [-2.]], dtype=torch.float64)
    """

    matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of rows and of columns."""
        return self.matrix.shape  # type: ignore[no-any-return]  # scipy has no types

    @property
    def mT(self) -> SparseRows:  # noqa: N802  # as of a tensor
        """The transposed matrix."""
        return SparseRows(self.matrix.T)

    def __len__(self) -> int:
        return self.shape[0]

    def __matmul__(self, other: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix @ other.numpy())

    def __getitem__(self, index: Any) -> Tensor:
        rows, columns = index
        return torch.from_numpy(self.matrix[rows, np.asarray(columns)].toarray())

    def abs(self) -> SparseRows:
        """Return the matrix of absolute values."""
        return SparseRows(abs(self.matrix))


def linear_rows(x: Any) -> LinearRows:
    """Return the rows of an array or of a sparse matrix, for linear problems."""
    if issparse(x):
        return SparseRows(csc_array(x, dtype=np.float64))
    return torch.from_numpy(np.array(x, dtype=np.float64))  # a copy: the rows may be read-only


def varying_columns(x: Any) -> np.ndarray[Any, Any]:
    """Return a mask of the columns of a matrix, dense or sparse, that have different values.

    Examples:
        >>> varying_columns(np.array([[1.0, 0.0], [1.0, 2.0]])), varying_columns(csc_array([[1.0, 0.0], [1.0, 2.0]]))
        (array([False,  True]), array([False,  True]))
    """
    largest, least = x.max(axis=0), x.min(axis=0)
    if issparse(x):
        largest, least = (part.toarray().reshape(-1) for part in (largest, least))
    return np.asarray(largest != least)
