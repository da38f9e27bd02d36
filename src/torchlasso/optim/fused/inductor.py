"""Kernels: a function of runs of weights that torch.compile's inductor turns into one pass over memory.

On a CPU inductor makes one C++ function of it, for runs of every size; it is called directly, once for each run, since
the checks around a call of a compiled function take longer than a small run does.
"""

from __future__ import annotations

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim.fused.memory import Runs

# So many weights are a share of the work that is worth a thread, as for torch's own element-wise operations.
GRAIN = 32768


class KernelSource(ABC):
    """A function of runs that a kernel can be made of. Hashable: there is one kernel for those that are equal."""

    @property
    @abstractmethod
    def sizes(self) -> tuple[int, ...]:
        """The size of a run that inductor is shown: its length, or rows, columns and, for a gap, more than columns.

        Numbers that nothing else has; that they are large tells inductor that threads pay. Between rows with a gap it
        sees rows, and does all that it can in one pass over them; those without it takes for one run as long as it can.
        """

    @abstractmethod
    def __call__(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[Tensor]:
        """Write into tensors of one size.

        Returns:
            For rows: what is to be computed once for each of them, of which a bool that comes first is handed on.
        """


class Kernel:
    """The compiled form of a function of runs.

    Args:
        source: the function.
        dtypes: of the tensors.
        n_numbers: how many numbers there are.
        parallel: whether threads share a run.

    Raises:
        RuntimeError: what inductor made of it is not one function.
    """

    def __init__(self, source: KernelSource, dtypes: tuple[torch.dtype, ...], n_numbers: int, parallel: bool) -> None:
        self._dtype = torch.promote_types(dtypes[0], torch.float32)
        height, *widths = source.sizes
        samples = [torch.zeros(height, *widths[-1:], dtype=dtype) for dtype in dtypes]
        samples = [sample[:, : widths[0]] if widths else sample for sample in samples]
        samples.append(torch.zeros(n_numbers, dtype=self._dtype))
        self._call, arguments, returned = _compiled(lambda *t: source(t[:-1], t[-1].unbind()), samples, parallel)
        self._places = [_place(argument, samples, source.sizes, returned) for argument in arguments]

    def __call__(self, runs: Runs, numbers: list[float]) -> Tensor | None:
        """Do the step on every run; the bool of all rows in turn."""
        first, last = runs.sizes[0], runs.sizes[-1]
        known: dict[Any, Iterable[Any]] = dict(enumerate((*runs.columns, self._given(runs, numbers))))
        known.update({"size 0": first, "size 1": last, "size 2": last})
        flags = None
        if _FLAGS in self._places:
            flags = torch.empty(sum(first), dtype=torch.bool)
            known[_FLAGS] = torch.split(flags, list(first))
        for place in self._places:
            if isinstance(place, Scratch):
                known[place] = repeat(place.make(runs.sizes))
        # one call for each run
        deque(map(self._call, *[known[place] for place in self._places]), maxlen=0)
        return flags

    def _given(self, runs: Runs, numbers: list[float]) -> Iterable[Tensor]:
        if not runs.factors:
            return repeat(torch.tensor(numbers, dtype=self._dtype))
        lam, *others = numbers
        each = {factor: torch.tensor([lam * factor, *others], dtype=self._dtype) for factor in set(runs.factors)}
        return [each[factor] for factor in runs.factors]


_FLAGS = "flags"


@dataclass(frozen=True)
class Scratch:
    """Memory that the function works in.

    Attributes:
        dtype: its precision.
        dims: whether it is one number for each row or for each weight.
        index: tells one from another.
    """

    dtype: torch.dtype
    dims: int
    index: int

    def make(self, sizes: Sequence[Sequence[int]]) -> Tensor:
        """Enough of it for the largest of the runs."""
        return torch.empty(max(map(math.prod, zip(*sizes[: self.dims], strict=True))), dtype=self.dtype)


def _compiled(
    function: Callable[..., list[Tensor]], samples: list[Tensor], parallel: bool
) -> tuple[Callable[..., None], tuple[Any, ...], list[Tensor]]:
    """The C++ function that inductor makes, what it is called with for the samples, and what comes of it."""
    # imported where it is needed: it takes seconds
    from torch._inductor import config, standalone_compile
    from torch._inductor.codecache import PyCodeCache
    from torch.fx.experimental.proxy_tensor import make_fx

    options = {
        "cpp.vec_isa_ok": True,  # what the processor says it has is not tried out first, which would take seconds
        "cpp_cache_precompile_headers": False,  # they take longer than the few kernels that are compiled with them
        "cpp.threads": -1 if parallel else 1,
        "cpp.dynamic_threads": parallel,  # as many as torch.set_num_threads says, without a new compilation
        "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one instruction, rounded once
        "size_asserts": False,
    }
    before = {id(module) for module in PyCodeCache.modules}
    with warnings.catch_warnings(), torch.no_grad(), config.patch(options):
        warnings.simplefilter("ignore")
        standalone_compile(make_fx(function, tracing_mode="symbolic")(*samples), list(samples))
    modules = [module for module in PyCodeCache.modules if id(module) not in before]
    names = [name for module in modules for name in vars(module) if name.startswith("cpp_fused")]
    if len(modules) != 1 or len(names) != 1:
        raise RuntimeError(f"expected one C++ function; inductor made {names}")
    # which argument is which is seen by looking on at one call
    calls: list[tuple[Any, ...]] = []
    (module,), (name,) = modules, names
    kernel = getattr(module, name)
    setattr(module, name, lambda *arguments: calls.append(arguments))
    returned = module.call(list(samples))
    setattr(module, name, kernel)
    return kernel, calls[0], list(returned)


def _place(argument: Any, samples: list[Tensor], sizes: tuple[int, ...], returned: list[Tensor]) -> Any:
    """Return the source of an argument: a tensor's number, the name of a size, the flags or scratch memory."""
    if isinstance(argument, int):
        return f"size {sizes.index(argument)}"
    for place, sample in enumerate(samples):
        if argument is sample:
            return place
    if argument.dtype == torch.bool and argument is returned[0]:
        return _FLAGS
    return Scratch(argument.dtype, argument.dim(), id(argument))


def kernel(source: KernelSource, runs: Runs, n_numbers: int) -> Kernel | None:
    """The kernel of a function for these runs; None, and a warning once, where nothing can be compiled.

    It is compiled once for a process, for runs of every size, and kept on disk by inductor.
    """
    dtypes = tuple([column[0].dtype for column in runs.columns])
    parallel = torch.get_num_threads() > 1 and 2 * runs.weights > GRAIN * len(runs.sizes[0])
    return _kernel(source, dtypes, n_numbers, parallel)


@functools.cache
def _kernel(source: KernelSource, dtypes: tuple[torch.dtype, ...], n_numbers: int, parallel: bool) -> Kernel | None:
    try:
        return Kernel(source, dtypes, n_numbers, parallel)
    except Exception as error:  # whatever keeps a compiler from working
        if type(error) not in _SEEN:  # what it says may name a file of its own for each kernel
            _SEEN.add(type(error))
            _warn(" ".join(f"{type(error).__name__}: {error}".split())[:200])
        return None


_SEEN: set[type[Exception]] = set()


def _warn(reason: str) -> None:
    warnings.warn(
        "torchlasso goes on without its fused step, with torch's own and a prox after it: nothing could be compiled "
        f"({reason})",
        stacklevel=2,
    )
