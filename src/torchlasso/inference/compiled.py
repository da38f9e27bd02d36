"""Sparse products as compiled functions that keep their sums in registers."""

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
#
# A product with a vector, y[o] = bias[o] + Σ_j values[j] x[col[j]], is bound by the memory of values and columns, so
# columns of 16 bits are read where they suffice, and by how x is gathered: with AVX-512 by vectors.
SOURCE = r"""
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
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

#ifdef __AVX512F__
inline __m512 load(const float* v) { return _mm512_loadu_ps(v); }
inline __m512d load(const double* v) { return _mm512_loadu_pd(v); }
inline __m512 gather(const float* x, const int32_t* at) { return _mm512_i32gather_ps(_mm512_loadu_si512(at), x, 4); }
inline __m512 gather(const float* x, const uint16_t* at) {
  return _mm512_i32gather_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)at)), x, 4);
}
inline __m512d gather(const double* x, const int32_t* at) {
  return _mm512_i32gather_pd(_mm256_loadu_si256((const __m256i*)at), x, 8);
}
inline __m512d gather(const double* x, const uint16_t* at) {
  return _mm512_i32gather_pd(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)at)), x, 8);
}
inline __m512 sum(__m512 a, __m512 v, __m512 x) { return _mm512_fmadd_ps(v, x, a); }
inline __m512d sum(__m512d a, __m512d v, __m512d x) { return _mm512_fmadd_pd(v, x, a); }
inline float total(__m512 a) { return _mm512_reduce_add_ps(a); }
inline double total(__m512d a) { return _mm512_reduce_add_pd(a); }

template <typename F, typename C> F dot(const F* x, const C* col, const F* values, int32_t n) {
  constexpr int32_t lanes = bytes / sizeof(F), chains = 4;  // sums that do not wait for each other
  decltype(load(values)) sums[chains] = {};
  int32_t j = 0;
  for (; j + chains * lanes <= n; j += chains * lanes)
    for (int32_t c = 0, i = j; c < chains; ++c, i += lanes)
      sums[c] = sum(sums[c], load(values + i), gather(x, col + i));
  for (; j + lanes <= n; j += lanes) sums[0] = sum(sums[0], load(values + j), gather(x, col + j));
  F rest = 0;
  for (; j < n; ++j) rest += values[j] * x[col[j]];
  return rest + total((sums[0] + sums[1]) + (sums[2] + sums[3]));
}
#else
template <typename F, typename C> F dot(const F* x, const C* col, const F* values, int32_t n) {
  constexpr int32_t chains = 8;
  F sums[chains] = {}, rest = 0;
  int32_t j = 0;
  for (; j + chains <= n; j += chains)
    for (int32_t c = 0; c < chains; ++c) sums[c] += values[j + c] * x[col[j + c]];
  for (; j < n; ++j) rest += values[j] * x[col[j]];
  for (F part : sums) rest += part;
  return rest;
}
#endif

template <typename F, typename C>
void multiply(const F* x, const int32_t* crow, const C* col, const F* values, const F* bias, F* y, int64_t rows,
              int64_t threads) {
  #pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t o = 0; o < rows; ++o)
    y[o] = dot(x, col + crow[o], values + crow[o], crow[o + 1] - crow[o]) + (bias ? bias[o] : F(0));
}

#define EXPORT(name, F)                                                                                        \
  extern "C" void name(const F* const* x, const int32_t* crow, const int32_t* col, const F* values,            \
                       const F* bias, F* y, const int64_t* n) {                                                \
    Sum<F>{x, crow, col, values, bias, y, n[0], n[1], n[2], n[3], n[4], n[5], n[6]}.run(n[7]);                 \
  }
EXPORT(of_float, float)
EXPORT(of_double, double)

#define EXPORT_VECTOR(name, F, C)                                                                              \
  extern "C" void name(const F* x, const int32_t* crow, const C* col, const F* values, const F* bias, F* y,    \
                       const int64_t* n) {                                                                     \
    multiply<F, C>(x, crow, col, values, bias, y, n[0], n[1]);                                                 \
  }
EXPORT_VECTOR(vector_of_float, float, int32_t)
EXPORT_VECTOR(vector_of_double, double, int32_t)
EXPORT_VECTOR(narrow_vector_of_float, float, uint16_t)
EXPORT_VECTOR(narrow_vector_of_double, double, uint16_t)
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
        (ctypes.c_void_p * len(firsts))(*firsts), *map(_pointer, tensors), _whole(*numbers)
    )


def multiply_vector(matrix: SparseMatrix, x: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply a matrix by a contiguous vector, and add the bias, (outputs,)."""
    y = x.new_empty(matrix.size[0])
    narrow = matrix.narrow_col
    name = f"{'' if narrow is None else 'narrow_'}vector_{FUNCTIONS[x.dtype]}"
    tensors = (x, matrix.crow, matrix.col if narrow is None else narrow, matrix.values, bias, y)
    getattr(library(), name)(*map(_pointer, tensors), _whole(len(y), torch.get_num_threads()))
    return y


def _pointer(tensor: Tensor | None) -> Any:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())


def _whole(*numbers: int) -> Any:
    return (ctypes.c_int64 * len(numbers))(*numbers)
