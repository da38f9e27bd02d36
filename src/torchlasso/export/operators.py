"""Operators that a ``.pt2`` file may call: functions that only compute with tensors and numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

# None of them opens a file, follows a pointer or trusts a size in its arguments. If a model calls another operator of
# torch, writing the file is refused, so this list alone decides.
NAMES = """
__and__ __lshift__ __or__ __rshift__ __xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar
_assert_tensor_metadata _conj _convolution _local_scalar_dense _log_softmax _neg_view _safe_softmax _shape_as_tensor
_softmax _to_copy _trilinear _unique2 _unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa
_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _weight_norm

abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm addmv addr adjoint affine_grid_generator
alias all alpha_dropout amax amin aminmax angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax
argmin argsort argwhere as_strided asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d
avg_pool3d baddbmm bartlett_window batch_norm bernoulli bilinear bincount bitwise_and bitwise_left_shift bitwise_not
bitwise_or bitwise_right_shift bitwise_xor blackman_window block_diag bmm broadcast_tensors broadcast_to bucketize
cartesian_prod cat cdist ceil celu channel_shuffle cholesky chunk clamp clamp_max clamp_min clip clone col2im
column_stack combinations complex concat concatenate conj conj_physical constant_pad_nd contiguous conv1d conv2d
conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copysign corrcoef cos cosh
cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum cumulative_trapezoid deg2rad det detach
detach_copy diag diag_embed diagflat diagonal diagonal_scatter diff digamma dist div divide dot dropout dsplit dstack
einsum elu embedding embedding_bag empty empty_like empty_permuted empty_strided eq equal erf erfc erfinv exp exp2
expand expand_as expm1 exponential eye feature_alpha_dropout feature_dropout fft_fft fft_fft2 fft_fftfreq fft_fftn
fft_fftshift fft_hfft fft_hfft2 fft_hfftn fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn
fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn fill fix flatten flip fliplr flipud
float_power floor floor_divide fmax fmin fmod frac frexp frobenius_norm full full_like gather gcd ge gelu ger glu
gradient greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt hamming_window
hann_window hardshrink hardsigmoid hardswish hardtanh heaviside histc hsplit hstack hypot i0 igamma igammac im2col
imag index index_add index_copy index_fill index_put index_reduce index_select inner instance_norm inverse is_nonzero
isclose isfinite isin isinf isnan isneginf isposinf isreal istft item kaiser_window kron kthvalue layer_norm lcm ldexp
le leaky_relu lerp less less_equal lgamma lift_fresh lift_fresh_copy linalg_cholesky linalg_cond linalg_cross
linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv
linalg_inv_ex linalg_lstsq linalg_lu linalg_lu_factor linalg_matmul linalg_matrix_exp linalg_matrix_norm
linalg_matrix_power linalg_matrix_rank linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve
linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander
linalg_vecdot linalg_vector_norm linear linspace log log10 log1p log2 log_sigmoid log_softmax logaddexp logaddexp2
logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logspace logsumexp lstm lstm_cell lt mH mT
masked_fill masked_scatter masked_select matmul matrix_H matrix_exp matrix_power max max_pool1d
max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d
max_unpool3d maximum mean median meshgrid min minimum mish mm mode moveaxis movedim mse_loss msort mul multinomial
multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow narrow_copy native_channel_shuffle
native_dropout ne neg negative new_empty new_empty_strided new_full new_ones new_zeros nextafter nonzero
nonzero_static norm norm_except_dim normal normal_functional not_equal nuclear_norm numel numpy_T one_hot ones
ones_like outer pad pairwise_distance pdist permute pinverse pixel_shuffle pixel_unshuffle poisson polar polygamma
positive pow prelu prod quantile rad2deg rand rand_like randint randint_like randn randn_like randperm range ravel
real reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu relu6 remainder renorm repeat
repeat_interleave replication_pad1d replication_pad2d replication_pad3d reshape reshape_as resolve_conj resolve_neg
rms_norm rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round row_stack rrelu rsqrt rsub scalar_tensor
scaled_dot_product_attention scatter scatter_add scatter_reduce searchsorted select select_scatter selu sgn sigmoid
sign signbit silu sin sinc sinh slice slice_scatter slogdet smooth_l1_loss softmax softplus softshrink sort
special_digamma special_entr special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit
special_expm1 special_gammainc special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e
special_log1p special_log_ndtr special_log_softmax special_logit special_logsumexp special_multigammaln special_ndtr
special_ndtri special_polygamma special_psi special_round special_sinc special_softmax special_xlog1py special_xlogy
special_zeta split split_with_sizes sqrt square squeeze stack std std_mean stft sub subtract sum sum_to_size swapaxes
swapdims sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_storage_offset
sym_stride t take take_along_dim tan tanh tensor_split tensordot threshold tile to topk trace transpose trapezoid
trapz triangular_solve tril tril_indices triu triu_indices true_divide trunc type_as unbind unflatten unfold uniform
unique_consecutive unique_dim unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
vander var var_mean vdot view view_as view_as_complex view_as_real vsplit vstack where xlogy zero zeros zeros_like
"""
ATEN = frozenset(NAMES.split())
ON_NUMBERS = ("add", "and_", "eq", "floordiv", "ge", "gt", "le", "lt", "mod", "mul", "ne", "neg", "or_", "pos", "sub")
OF_TORCH = ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt")
MOST = 1 << 63  # the largest size: Python's integers could fill the memory


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*numbers: Any) -> Any:
        result = function(*numbers)
        if isinstance(result, int) and abs(result) > MOST:
            raise ValueError("a size does not fit into 64 bits")
        return result

    return call


def _power(base: Any, exponent: Any) -> Any:
    if exponent > 64:
        raise ValueError(f"a size to the power of {exponent}")
    return base**exponent


NUMBERS: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{name}": _bounded(getattr(operator, name)) for name in ON_NUMBERS},
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc")},
    **{f"torch.{name}": getattr(torch, name) for name in OF_TORCH},
    "_operator.pow": _bounded(_power),
    "_operator.truediv": operator.truediv,
}


def _without_gradient(enabled: bool, body: Callable[..., Any], *args: Any) -> Any:
    return body(*args)  # the whole program runs without gradients


def _autocast(
    device: str, dtype: torch.dtype | None, enabled: bool, cache: bool | None, body: Callable[..., Any], *args: Any
) -> Any:
    with torch.autocast("cpu", dtype=dtype, enabled=enabled, cache_enabled=cache):
        return body(*args)


def _cond(holds: Any, yes: Callable[..., Any], no: Callable[..., Any], args: Any = ()) -> Any:
    return yes(*args) if holds else no(*args)


BODIES: Mapping[str, Callable[..., Any]] = {
    "torch.ops.higher_order.cond": _cond,
    "torch.ops.higher_order.wrap_with_autocast": _autocast,
    "torch.ops.higher_order.wrap_with_set_grad_enabled": _without_gradient,
}


def operator_of(target: str) -> Callable[..., Any]:
    """Return the function that a node of a program names.

    Raises:
        ValueError: a program may not call it.

    >>> operator_of("torch.ops.aten.add.Tensor")(torch.ones(1), 2)
    tensor([3.])
    >>> operator_of("torch.load")
    Traceback (most recent call last):
    ValueError: a program may not call 'torch.load'
    """
    if target in NUMBERS or target in BODIES:
        return NUMBERS[target] if target in NUMBERS else BODIES[target]
    root, _, rest = target.partition("torch.ops.aten.")
    name, _, overload = rest.partition(".")
    base = name if name.endswith("__") else name.removesuffix("_")  # add_ writes into its first argument
    if not root and base in ATEN and overload.isidentifier() and not overload.startswith("_"):
        found = getattr(getattr(torch.ops.aten, name, None), overload, None)
        if isinstance(found, OpOverload) and not any(argument.is_out for argument in found._schema.arguments):
            return found
    raise ValueError(f"a program may not call {target!r}")
