"""Quick compilation of kernels."""

from __future__ import annotations

from torchlasso.optim.fused.inductor import OPTIONS


def read_headers_once() -> None:
    """Read torch's headers once for all kernels: the tests compile dozens of them, and a user one or two."""
    OPTIONS["cpp_cache_precompile_headers"] = True
