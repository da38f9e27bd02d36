"""The parts of a row kernel in C++ that are the same for all functions, and the translations of torch's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "c10::BFloat16", torch.float16: "c10::Half"}

# The same names for vectors of weights and for single numbers.
HELPERS = r"""
#include <torch/csrc/inductor/cpp_prefix.h>
#include <memory>
#include <type_traits>

using F = @F@;  // of the arithmetic
using T = @T@;  // in memory
using V = at::vec::Vectorized<F>;

inline F root(F x) { return std::sqrt(x); }
inline V root(const V& x) { return x.sqrt(); }
inline F size_of(F x) { return std::abs(x); }
inline V size_of(const V& x) { return x.abs(); }
inline F cosine(F x) { return std::cos(x); }
inline V cosine(const V& x) { return x.cos(); }
inline F arc_cosine(F x) { return std::acos(x); }
inline V arc_cosine(const V& x) { return x.acos(); }
inline F log_1p(F x) { return std::log1p(x); }
inline V log_1p(const V& x) { return x.log1p(); }
inline F power(F x, F y) { return std::pow(x, y); }
inline V power(const V& x, const V& y) { return x.pow(y); }
inline F larger(F a, F b) { return a > b || a != a ? a : b; }
inline V larger(const V& a, const V& b) { return at::vec::maximum(a, b); }
inline F at_least(F a, F b) { return a < b ? b : a; }
inline V at_least(const V& a, const V& b) { return at::vec::clamp_min(a, b); }
inline F smaller(F a, F b) { return a < b || a != a ? a : b; }
inline V smaller(const V& a, const V& b) { return at::vec::minimum(a, b); }
inline F pick(bool which, F a, F b) { return which ? a : b; }
inline V pick(bool which, const V& a, const V& b) { return which ? a : b; }
inline V pick(const V& which, const V& a, const V& b) { return V::blendv(b, a, which); }
template <typename X, typename Y> inline auto both(X a, Y b) { return a & b; }
template <typename X, typename Y> inline auto either(X a, Y b) { return a | b; }

inline V load(const F* p, int64_t n) { return n == V::size() ? V::loadu(p) : V::loadu(p, n); }
inline void store(F* p, const V& x, int64_t n) { n == V::size() ? x.store(p) : x.store(p, n); }
inline V first(const V& x, F other, int64_t n) { return n == V::size() ? x : V::set(V(other), x, n); }
inline F total(const V& x) { return at::vec::vec_reduce_all<F>([](V& a, V& b) { return a + b; }, x); }
inline F largest(const V& x) { return at::vec::vec_reduce_all<F>([](V& a, V& b) { return larger(a, b); }, x); }

// the n numbers of a row: whole vectors, then what is left
#define EACH(...) do { int64_t i = 0; \
  { constexpr int64_t n = V::size(); for (; i + n <= width; i += n) { __VA_ARGS__ } } \
  if (i < width) { const int64_t n = width - i; __VA_ARGS__ } } while (false)
"""


STEP = r"""
extern "C" void step(int64_t views, const int64_t* heights, const int64_t* widths, const int64_t* pointers,
                     const F* numbers, int64_t per_view, bool* flags, int64_t threads) {
  for (int64_t view = 0; view < views; ++view) {
    const int64_t height = heights[view], width = widths[view];
@of a view@
    #pragma omp parallel num_threads(threads) if (threads > 1 && height * width > @grain@)
    {
      const std::unique_ptr<F[]> memory(new F[@rows of memory@ * width]);
      #pragma omp for schedule(static)
      for (int64_t row = 0; row < height; ++row) {
@of a row@
      }
    }
    numbers += per_view;
    if (flags) flags += height;
  }
}
"""

# Operators on numbers of any kind: a, b and c stand for the arguments.
EXPRESSIONS = {
    "add.Tensor": "{0} + {1}",
    "sub.Tensor": "{0} - {1}",
    "rsub.Scalar": "{1} - {0}",
    "mul.Tensor": "{0} * {1}",
    "div.Tensor": "{0} / {1}",
    "neg.default": "F(0) - {0}",
    "reciprocal.default": "F(1) / {0}",
    "sqrt.default": "root({0})",
    "abs.default": "size_of({0})",
    "cos.default": "cosine({0})",
    "acos.default": "arc_cosine({0})",
    "log1p.default": "log_1p({0})",
    "pow.Tensor_Scalar": "power({0}, {1})",
    "maximum.default": "larger({0}, {1})",
    "minimum.default": "smaller({0}, {1})",
    "clamp_min.default": "at_least({0}, {1})",
    "clamp_min.Tensor": "larger({0}, {1})",
    "relu.default": "at_least({0}, 0)",
    "where.self": "pick({0}, {1}, {2})",
    "bitwise_and.Tensor": "both({0}, {1})",
    "bitwise_or.Tensor": "either({0}, {1})",
    **{
        f"{name}.{kind}": f"{{0}} {sign} {{1}}"
        for name, sign in (("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!="))
        for kind in ("Tensor", "Scalar")
    },
}
# Operators whose result is another name of their argument.
SAME = ("detach", "unsqueeze", "expand", "lift_fresh_copy", "view", "squeeze", "alias", "clone")
CONSTANTS: dict[str, Callable[[Any], float]] = {
    "scalar_tensor.default": lambda args: args[0],
    "full_like.default": lambda args: args[1],
    "zeros_like.default": lambda args: 0.0,
}
# over the weights of a row: where it starts, a term, how it is added, and the result
SUMS = {
    "sum.dim_IntList": ("F(0)", "{0}", "{0} + {1}", "total({0})"),
    "linalg_vector_norm.default": ("F(0)", "{0} * {0}", "{0} + {1}", "root(total({0}))"),
    "amax.default": ("F(-INFINITY)", "{0}", "larger({0}, {1})", "largest({0})"),
}
UNSEEN = ("unbind.int", "copy_.default")
