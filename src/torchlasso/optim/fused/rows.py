"""Row kernels: update and prox of one row after the other, while the nearest cache holds it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim.fused.inductor import OPTIONS, KernelSource, or_none
from torchlasso.optim.fused.memory import FlatViews
from torchlasso.optim.fused.row_source import SAMPLE, source_of


class RowKernel:
    """The compiled form of a function of rows.

    Args:
        source: the function.
        dtype: of the tensors.
        n_tensors, n_numbers: how many tensors and numbers it takes.

    Raises:
        ValueError: the function has an operator without a translation.
    """

    def __init__(self, source: KernelSource, dtype: torch.dtype, n_tensors: int, n_numbers: int) -> None:
        # imported where they are needed: they take seconds
        from torch._inductor import config
        from torch._inductor.codecache import CppCodeCache
        from torch.fx.experimental.proxy_tensor import make_fx

        self._dtype = torch.promote_types(dtype, torch.float32)
        samples = [torch.ones(SAMPLE, dtype=self._dtype) for _ in range(n_tensors)]
        samples.append(torch.ones(n_numbers, dtype=self._dtype))
        with torch.no_grad():
            graph = make_fx(lambda *t: source(t[:-1], t[-1].unbind()))(*samples)
        text, self._flagged = source_of(graph, dtype)
        # half of AVX-512's registers hold as much as memory delivers, and so the same code runs with both
        wide = {"cpp.simdlen": 256} if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else {}
        with config.patch({**OPTIONS, **wide}):
            self._step = CppCodeCache.load(text).step

    def __call__(self, views: FlatViews, numbers: list[float]) -> Tensor | None:
        """Do the step on every view, and return the bool of all rows in turn."""
        heights, widths = views.sizes
        flags = torch.empty(sum(heights) if self._flagged else 0, dtype=torch.bool)
        each = torch.tensor(numbers, dtype=self._dtype).repeat(len(heights), 1)
        if views.factors:
            each[:, 0] *= torch.tensor(views.factors, dtype=self._dtype)
        self._step(
            ctypes.c_int64(len(heights)),
            _integers(heights),
            _integers(widths),
            _integers(list(map(Tensor.data_ptr, chain.from_iterable(views.columns)))),
            ctypes.c_void_p(each.data_ptr()),
            ctypes.c_int64(len(numbers)),
            ctypes.c_void_p(flags.data_ptr()),
            ctypes.c_int64(torch.get_num_threads()),
        )
        return flags if self._flagged else None


def _integers(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * len(values))(*values)


def row_kernel(source: KernelSource, views: FlatViews, n_numbers: int) -> RowKernel | None:
    """Return the kernel of a function for these views; None, and a warning once, where nothing can be compiled.

    It is compiled once for a process, for rows of every length, and kept on disk by inductor.
    """
    return _row_kernel(source, views.columns[0][0].dtype, len(views.columns), n_numbers)


_row_kernel = or_none(RowKernel)
