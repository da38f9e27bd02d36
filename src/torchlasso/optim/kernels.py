"""Kernels: a function of runs of weights that torch.compile's inductor turns into one pass over memory.

A run is what lies densely in memory: one weight after the other, for all tensors in the same order. On a CPU inductor
makes one C++ loop of the function, for runs of every length; it is called directly, once for each run, since the
checks around a call of a compiled function take longer than a small run does.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor

Run = tuple[Tensor, ...]
# Enough weights for a thread: torch's own element-wise operations share no less among theirs.
GRAIN = 32768


class Kernel:
    """The compiled form of ``function(tensors, numbers)``, which writes into the tensors in place.

    Args:
        function: element-wise on one-dimensional tensors of one length; with numbers in a tensor of one dimension.
        dtypes: of the tensors.
        n_numbers: how many numbers there are.
        parallel: whether all threads share a run.

    Raises:
        RuntimeError: what inductor made of it is not one loop.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Tensor], Tensor], None],
        dtypes: tuple[torch.dtype, ...],
        n_numbers: int,
        parallel: bool,
    ) -> None:
        def call(*tensors: Tensor) -> list[Tensor]:
            function(tensors[:-1], tensors[-1])
            return []

        # the length is a hint on whether threads pay, and no other length that a compiler may take for this one
        length = 8 * GRAIN + 1 if parallel else 1031
        self._numbers = torch.zeros(n_numbers, dtype=torch.promote_types(dtypes[0], torch.float32))
        samples = [*(torch.zeros(length, dtype=dtype) for dtype in dtypes), self._numbers]
        self._call, self._order = _compiled(call, samples, parallel)

    def __call__(self, runs: Iterable[Run], numbers: list[float]) -> None:
        """Do the step on every run."""
        given = torch.tensor(numbers, dtype=self._numbers.dtype)
        call, order = self._call, self._order
        for run in runs:
            call(*order((*run, given, run[0].numel())))


def _compiled(
    function: Callable[..., list[Tensor]], samples: list[Tensor], parallel: bool
) -> tuple[Callable[..., None], Callable[[tuple[Any, ...]], tuple[Any, ...]]]:
    """The C++ function that inductor makes, and the order in which it takes the tensors and, last, their length."""
    # imported where it is needed: it takes seconds
    from torch._inductor import config, standalone_compile
    from torch._inductor.codecache import PyCodeCache
    from torch.fx.experimental.proxy_tensor import make_fx

    options = {
        "cpp.vec_isa_ok": True,  # what the processor says it has is not tried out first, which would take seconds
        "cpp_cache_precompile_headers": False,  # they take longer than the few kernels that are compiled with them
        "cpp.threads": -1 if parallel else 1,
        "cpp.dynamic_threads": parallel,  # as many as torch.set_num_threads says, without a new compilation
        "size_asserts": False,
    }
    before = {id(module) for module in PyCodeCache.modules}
    with warnings.catch_warnings(), torch.no_grad(), config.patch(options):
        warnings.simplefilter("ignore")
        graph = make_fx(function, tracing_mode="symbolic")(*samples)
        standalone_compile(graph, samples)
    modules = [module for module in PyCodeCache.modules if id(module) not in before]
    names = [name for module in modules for name in vars(module) if name.startswith("cpp_fused")]
    if len(modules) != 1 or len(names) != 1:
        raise RuntimeError(f"expected one C++ function; inductor made {names}")
    # Which argument is which is seen by looking on at one call.
    seen: list[tuple[Any, ...]] = []
    kernel = getattr(modules[0], names[0])
    setattr(modules[0], names[0], lambda *args: seen.append(args))
    modules[0].call(list(samples))
    setattr(modules[0], names[0], kernel)
    length = samples[0].numel()
    places = [_place(arg, samples, length) for arg in seen[0]]
    return kernel, itemgetter(*places)


def _place(arg: Any, samples: list[Tensor], length: int) -> int:
    for place, sample in enumerate(samples):
        if arg is sample:
            return place
    if isinstance(arg, int) and arg == length:
        return len(samples)
    raise RuntimeError(f"inductor's function takes an argument that is not known here: {arg!r:.80}")


def kernel(function: Hashable, runs: Sequence[Run], n_numbers: int) -> Kernel | None:
    """The kernel of a function for these runs; None, and a warning once, where nothing can be compiled.

    It is compiled once for a process, for runs of every length, and kept on disk by inductor.
    """
    dtypes = tuple([t.dtype for t in runs[0]])
    share = sum([run[0].numel() for run in runs]) / len(runs)
    return _kernel(function, dtypes, n_numbers, torch.get_num_threads() > 1 and share > GRAIN / 2)


@functools.cache
def _kernel(function: Any, dtypes: tuple[torch.dtype, ...], n_numbers: int, parallel: bool) -> Kernel | None:
    try:
        return Kernel(function, dtypes, n_numbers, parallel)
    except Exception as error:  # whatever keeps a compiler from working
        _warn_once(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        return None


@functools.cache
def _warn_once(reason: str) -> None:
    warnings.warn(
        f"torchlasso goes on without its fused step, with torch's own and a prox after it: nothing could be compiled "
        f"({reason})",
        stacklevel=2,
    )
