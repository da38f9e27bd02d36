"""Magnitudes as numbers: their precision, quotients, and norms whose squares neither overflow nor underflow."""

from __future__ import annotations

import torch
from torch import Tensor


def computed(w: Tensor) -> Tensor:
    """Return ``w`` in the precision that magnitudes are computed in: at least float32, however weights are stored."""
    if w.dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        return w
    return w.to(torch.complex64 if w.is_complex() else torch.float32)


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, and zero where the denominator is zero."""
    return torch.where(denominator == 0, 0.0, numerator / denominator)


def sign(w: Tensor) -> Tensor:
    """Return the sign of each weight, w/|w| of complex ones, and NaN for NaN, where ``torch.sign`` gives 0."""
    return torch.where(w.isnan(), w, w.sgn())


def with_phase(r: Tensor, w: Tensor) -> Tensor:
    """Return the numbers of magnitude ``r`` with the sign, or the phase, of ``w``; zeros are not negative."""
    return r * sign(w) + 0.0 if w.is_complex() else torch.copysign(r, w).add_(0.0)


def as_reals(rows: Tensor) -> Tensor:
    """Return rows of complex numbers as rows of their real and imaginary parts, (n, 2·size); others as they are.

    Examples:
        >>> as_reals(torch.tensor([[1 + 2j, 3j]]))
        tensor([[1., 2., 0., 3.]])
    """
    return torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows


def as_complex(rows: Tensor, like: Tensor) -> Tensor:
    """Return what :func:`as_reals` was given, if ``like`` is complex."""
    return torch.view_as_complex(rows.reshape(*like.shape, 2)) if like.is_complex() else rows


def norms(rows: Tensor) -> Tensor:
    """Compute ‖·‖₂ of each row of a matrix, right for weights of every size; differentiable.

    Args:
        rows: (n, size).

    Examples:
        >>> norms(torch.tensor([[3e30, 4e30], [0.0, 1e-30]]))
        tensor([5.0000e+30, 1.0000e-30])
    """
    if not rows.is_cpu or torch.compiler.is_compiling():
        return scaled_norms(rows)  # without a branch that the host would have to wait for
    r = torch.linalg.vector_norm(rows, dim=1)
    limits = torch.finfo(r.dtype)
    odd = ~((r > (limits.tiny / limits.eps) ** 0.5) & (r < torch.inf))  # squares that count may have been lost
    return torch.index_put(r, (odd,), scaled_norms(rows[odd])) if odd.any() else r


def scaled_norms(rows: Tensor) -> Tensor:
    """Compute what :func:`norms` does without asking for a value: each row is divided by its largest weight first."""
    largest = largest_of(rows)
    r: Tensor = torch.linalg.vector_norm(rows / largest, dim=1)
    return largest[:, 0] * r


def largest_of(rows: Tensor) -> Tensor:
    """Return the largest |w| of each row, (n, 1), as a scale to divide by: 1 where it is zero or not finite."""
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    return torch.where((largest > 0) & (largest < torch.inf), largest, 1.0)
