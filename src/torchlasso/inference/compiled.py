"""Sums of sparse products as a compiled function that keeps the sums in registers."""

from __future__ import annotations

import ctypes
import functools
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchlasso.inference.matrix import SparseMatrix

# y[n, o, p] = bias[o] + Σ_k Σ_j values[j] x_k[n, col[j], p], with j the entries of row k·outputs + o of the matrix.
# The pixels p are processed in tiles of 8, 4, 2 and 1 vectors. The last tile ends at the last pixel, and may overlap
# the tile before, which is harmless. Fewer pixels than a vector are processed one by one.
SOURCE = r"""
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
constexpr int64_t bytes = 64;
#else
constexpr int64_t bytes = 32;
#endif

template <typename F> struct Sum {
  const F* const* x; const int32_t* crow; const int32_t* col; const F* values; const F* bias; F* y;
  int64_t batch, outputs, places, length, sample, channel, stride;
  typedef F Vector __attribute__((vector_size(bytes)));
  static constexpr int64_t lanes = bytes / sizeof(F);

  template <typename V, int T> void tile(int64_t n, int64_t o, int64_t p) const {
    V sum[T];
    for (int t = 0; t < T; ++t) sum[t] = V{} + (bias ? bias[o] : F(0));
    for (int64_t k = 0; k < places; ++k) {
      const F* from = x[k] + n * sample + p;
      const int32_t* ends = crow + k * outputs + o;
      for (int32_t j = ends[0]; j < ends[1]; ++j) {
        const F* row = from + col[j] * channel;
        #pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          V pixels;
          std::memcpy(&pixels, row + t * (sizeof(V) / sizeof(F)), sizeof(V));  // wherever it lies in memory
          sum[t] += values[j] * pixels;
        }
      }
    }
    std::memcpy(y + (n * outputs + o) * stride + p, sum, sizeof(sum));
  }

  struct Tile { int64_t start; int vectors; };

  std::vector<Tile> tiles() const {
    std::vector<Tile> found;
    int64_t p = 0;
    for (int size = 8; size; size /= 2)
      for (; p + size * lanes <= length; p += size * lanes) found.push_back({p, size});
    if (p < length && length >= lanes) found.push_back({length - lanes, 1});
    else for (; p < length; ++p) found.push_back({p, 0});
    return found;
  }

  void run(int64_t threads) const {
    const auto all = tiles();
    const int64_t rows = 32, parts = (outputs + rows - 1) / rows, each = all.size();
    #pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < batch * each * parts; ++i) {
      const int64_t n = i / (each * parts), first = i % parts * rows;
      const Tile& now = all[i / parts % each];
      for (int64_t o = first; o < std::min(first + rows, outputs); ++o) {
        switch (now.vectors) {
          case 8: tile<Vector, 8>(n, o, now.start); break;
          case 4: tile<Vector, 4>(n, o, now.start); break;
          case 2: tile<Vector, 2>(n, o, now.start); break;
          case 1: tile<Vector, 1>(n, o, now.start); break;
          default: tile<F, 1>(n, o, now.start);
        }
      }
    }
  }
};

#define EXPORT(name, F)                                                                                        \
  extern "C" void name(const F* const* x, const int32_t* crow, const int32_t* col, const F* values,            \
                       const F* bias, F* y, const int64_t* n) {                                                \
    Sum<F>{x, crow, col, values, bias, y, n[0], n[1], n[2], n[3], n[4], n[5], n[6]}.run(n[7]);                 \
  }
EXPORT(of_float, float)
EXPORT(of_double, double)
"""

FUNCTIONS = {torch.float32: "of_float", torch.float64: "of_double"}


@functools.cache
def library() -> Any:
    """Return the compiled functions, or None if nothing can be compiled. Inductor caches them on disk."""
    from torch._inductor import config  # imported only here: the import takes seconds
    from torch._inductor.codecache import CppCodeCache

    options = {
        "cpp.vec_isa_ok": True,  # trust the processor's flags: trying them out would take seconds
        "cpp_cache_precompile_headers": False,
        "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one instruction, rounded once
    }
    try:
        with warnings.catch_warnings(), config.patch(options):
            warnings.simplefilter("ignore")
            return CppCodeCache.load(SOURCE)
    except Exception:  # any exception: a compiler can fail in many ways
        return None


def applies(x: Tensor, matrix: SparseMatrix) -> bool:
    """Return whether compiled code can multiply the matrix by the tensor; it needs no gradient."""
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype == matrix.values.dtype and x.dtype in FUNCTIONS
    return plain and not (x.requires_grad and torch.is_grad_enabled()) and library() is not None


def sum_products(
    matrix: SparseMatrix, rows: Sequence[Tensor], starts: Sequence[int], length: int, bias: Tensor | None, out: Tensor
) -> None:
    """Write the sum of products of matrices with rows of pixels, and the bias, into the first pixels of ``out``.

    Args:
        matrix: the matrices, stacked vertically.
        rows: the rows for each matrix, (batch, inputs, pixels), contiguous and of one shape.
        starts: the first pixel to multiply, for each matrix.
        length: the number of pixels from there on.
        bias: (outputs,).
        out: contiguous, (batch, outputs, at least ``length`` pixels).
    """
    batch, inputs, pixels = rows[0].shape
    numbers = (batch, out.shape[1], len(rows), length, inputs * pixels, pixels, out.shape[2], torch.get_num_threads())
    width = out.element_size()
    firsts = [row.data_ptr() + start * width for row, start in zip(rows, starts, strict=True)]
    tensors = (matrix.crow, matrix.col, matrix.values, bias, out)
    getattr(library(), FUNCTIONS[out.dtype])(
        (ctypes.c_void_p * len(firsts))(*firsts),
        *(None if tensor is None else ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors),
        (ctypes.c_int64 * len(numbers))(*numbers),
    )
