"""A sparse matrix without its zeros."""

from __future__ import annotations

import functools
import warnings
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

NARROW = 2**16  # columns, which indices of 16 bits can tell apart


class InferenceModule(nn.Module):
    """A module that cannot be trained: its weights are buffers without the zeros."""

    any_precision: ClassVar[bool] = True  # whether the module can run in float64 and on a CPU

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    def train(self, mode: bool = True) -> InferenceModule:
        """Refuse training mode.

        Raises:
            ValueError: ``mode`` is true.
        """
        if mode:
            raise ValueError(
                f"mode must be False: a {type(self).__name__} is for inference; train the model that it was made from"
            )
        return super().train(False)


class SparseMatrix(InferenceModule):
    """Compressed rows, in torch's CSR layout or, in square blocks, in its BSR layout.

    It consists of plain tensors, so ``state_dict``, ``to`` and ``deepcopy`` work as usual. The indices have 32 bits, as
    in MKL: others would be converted in every product. Compiled products with vectors read columns of 16 bits, which is
    a quarter of the memory less; they are kept as well where they are wanted and suffice.

    Args:
        w: the matrix, (rows, columns).
        block: the height and width of a block; 1 for single entries.
        narrow: whether columns of 16 bits are kept, if there are 2¹⁶ columns at most; it needs single entries.

    Raises:
        ValueError: ``block`` does not divide both sizes.

    Examples:
        >>> matrix = SparseMatrix(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
        >>> matrix.values, matrix(torch.tensor([[1.0], [10.0]]))
        (tensor([2.]), tensor([[20.],
                [ 0.]]))
    """

    crow: Tensor  # (block rows + 1,)
    col: Tensor  # (blocks,)
    values: Tensor  # (blocks,) or (blocks, block, block)
    narrow_col: Tensor | None  # (blocks,), no part of the state

    def __init__(self, w: Tensor, block: int = 1, narrow: bool = False) -> None:
        super().__init__()
        if any(size % block for size in w.shape):
            raise ValueError(f"block must divide both sizes of {tuple(w.shape)}; got {block}")
        self.size = w.shape
        blocks = blocks_of(w, block)
        there = (blocks != 0).any(dim=-1).any(dim=-1)  # (block rows, block columns)
        ends = there.sum(dim=1).cumsum(dim=0)
        values = blocks[there]
        self.register_buffer("crow", nn.functional.pad(ends, (1, 0)).int())
        self.register_buffer("col", there.nonzero()[:, 1].int())
        self.register_buffer("values", values.flatten() if block == 1 else values)
        self.register_buffer("narrow_col", None, persistent=False)
        self.is_narrow = narrow and block == 1 and w.shape[1] <= NARROW
        self.register_load_state_dict_post_hook(_narrow)  # type: ignore[no-untyped-call]
        _narrow(self)

    def tensor(self) -> Tensor:
        """Return the matrix as a sparse tensor of torch that shares its memory."""
        return self._as_tensor(self.crow, self.col, self.values, self.size[0])

    def parts(self, rows: int) -> list[Tensor]:
        """Cut the matrix into matrices of ``rows`` rows each."""
        found = []
        for i, (start, end) in enumerate(pairwise(self.crow[::rows].tolist())):
            crow = self.crow[i * rows : (i + 1) * rows + 1] - start
            found.append(self._as_tensor(crow, self.col[start:end], self.values[start:end], rows))
        return found

    def _as_tensor(self, crow: Tensor, col: Tensor, values: Tensor, rows: int) -> Tensor:
        _silence()
        layout, size = torch.sparse_csr if values.dim() == 1 else torch.sparse_bsr, (rows, self.size[1])
        return torch.sparse_compressed_tensor(crow, col, values, size, layout=layout, check_invariants=False)

    def forward(self, input: Tensor, shift: Tensor | None = None) -> Tensor:
        """Multiply by a matrix or vector, and add ``shift``, which is broadcast."""
        w = self.tensor()
        if shift is None:
            return w @ input
        return torch.addmv(shift, w, input) if input.dim() == 1 else torch.addmm(shift, w, input)

    def extra_repr(self) -> str:
        rows, columns = self.size
        return f"{rows}×{columns}, {self.values.numel():,} kept"


def _narrow(matrix: SparseMatrix, *_: Any) -> None:
    matrix.narrow_col = matrix.col.to(torch.uint16) if matrix.is_narrow else None


def blocks_of(w: Tensor, block: int) -> Tensor:
    """Cut a matrix into square blocks: (block rows, block columns, block, block)."""
    rows, columns = w.shape
    return w.reshape(rows // block, block, columns // block, block).transpose(1, 2)


@functools.cache
def _silence() -> None:
    """Trigger torch's one-time warning that its sparse tensors may change, and suppress it."""
    empty = torch.zeros(1, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_compressed_tensor(
            empty, empty[:0], torch.zeros(0), (0, 0), layout=torch.sparse_csr, check_invariants=False
        )
