"""Kernels: functions of flat views of memory that torch.compile's inductor turns into one pass over it.

On a CPU inductor makes one C++ function of it, for views of every size; it is called directly, once for each view,
since the checks around a call of a compiled function take longer than a small view does.
"""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, TypeVar

import torch
from torch import Tensor, fx

from torchlasso.optim.fused.memory import FlatViews

# A thread is worth its start for so many weights, as in torch's own element-wise operations.
GRAIN = 32768
LENGTH = 8 * GRAIN + 1  # of the views that inductor is shown: large, so that it sees that threads pay

# The options of inductor for every kernel.
OPTIONS: dict[str, Any] = {
    "cpp.vec_isa_ok": True,  # trust the processor's own list of instructions: to try them out would take seconds
    "cpp_cache_precompile_headers": False,  # they take longer than the few kernels that are compiled with them
    "cpp.enable_floating_point_contract_flag": "fast",  # a product and a sum in one instruction, rounded once
    "size_asserts": False,
}


class KernelSource(ABC):
    """A function of views of memory that a kernel can be made of. Hashable: equal ones share one kernel."""

    @abstractmethod
    def __call__(self, tensors: Sequence[Tensor], numbers: Sequence[Tensor]) -> list[Tensor]:
        """Write into tensors of one size.

        Returns:
            For rows: a bool for each of them, if the caller needs one.
        """


class Kernel:
    """The compiled form of a function of flat views.

    Args:
        source: the function.
        dtypes: of the tensors.
        n_numbers: how many numbers there are.
        parallel: whether threads share a view.

    Raises:
        RuntimeError: inductor made more than one function of it.
    """

    def __init__(self, source: KernelSource, dtypes: tuple[torch.dtype, ...], n_numbers: int, parallel: bool) -> None:
        self._dtype = torch.promote_types(dtypes[0], torch.float32)
        samples = [torch.zeros(LENGTH, dtype=dtype) for dtype in dtypes]
        samples.append(torch.zeros(n_numbers, dtype=self._dtype))
        self._call, arguments = _compiled(lambda *t: source(t[:-1], t[-1].unbind()), samples, parallel)
        self._places = [_place(argument, samples) for argument in arguments]

    def __call__(self, views: FlatViews, numbers: list[float]) -> None:
        """Do the step on every view."""
        (lengths,) = views.sizes
        known = [*views.columns, repeat(torch.tensor(numbers, dtype=self._dtype)), lengths]
        # one call for each view
        deque(map(self._call, *[known[place] for place in self._places]), maxlen=0)


def _compiled(
    function: Callable[..., list[Tensor]], samples: list[Tensor], parallel: bool
) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """Return the C++ function that inductor makes, and its arguments for the samples."""
    # imported where it is needed: it takes seconds
    from torch._inductor import config
    from torch._inductor.codecache import PyCodeCache

    options = {
        **OPTIONS,
        "cpp.threads": -1 if parallel else 1,
        "cpp.dynamic_threads": parallel,  # as many as torch.set_num_threads says, without a new compilation
    }
    before = {id(module) for module in PyCodeCache.modules}
    with warnings.catch_warnings(), torch.no_grad(), config.patch(options):
        warnings.simplefilter("ignore")
        _compile(function, samples)
    modules = [module for module in PyCodeCache.modules if id(module) not in before]
    names = [name for module in modules for name in vars(module) if name.startswith("cpp_fused")]
    if len(modules) != 1 or len(names) != 1:
        raise RuntimeError(f"expected one C++ function; inductor made {names}")
    # one recorded call tells which argument is which
    calls: list[tuple[Any, ...]] = []
    (module,), (name,) = modules, names
    kernel = getattr(module, name)
    setattr(module, name, lambda *arguments: calls.append(arguments))
    module.call(list(samples))
    setattr(module, name, kernel)
    return kernel, calls[0]


def _compile(function: Callable[..., list[Tensor]], samples: list[Tensor]) -> None:
    """Let inductor compile a function for samples of any size.

    A function that writes into tensors only at its end is already as inductor wants it, which saves a third of the
    time: a second trace, in which AOTAutograd turns the other writes into new tensors.
    """
    from torch._guards import TracingContext, tracing
    from torch._inductor import standalone_compile
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(function, decomposition_table=select_decomp_table(), tracing_mode="symbolic")(*samples)
    if not _writes_only_at_its_end(graph.graph):
        standalone_compile(graph, [*samples])
        return
    fake = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    kept = fx.GraphModule({}, graph.graph)  # its environment of shapes would keep inductor from keeping it on the disk
    with tracing(TracingContext(fake[0].fake_mode)):
        compile_fx_inner(kept, fake)


def _writes_only_at_its_end(graph: fx.Graph) -> bool:
    """Return whether all writes of a graph are its last operators, into placeholders that nothing reads afterwards."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    writes = [n for n in calls if isinstance(n.target, torch._ops.OpOverload) and n.target._schema.is_mutable]
    places = [node.args[0] for node in writes]
    into_inputs = all(isinstance(place, fx.Node) and place.op == "placeholder" for place in places)
    copies = all(node.target is torch.ops.aten.copy_.default and not node.users for node in writes)
    at_end = writes == calls[len(calls) - len(writes) :]
    return into_inputs and copies and at_end and len(set(places)) == len(places)


def _place(argument: Any, samples: list[Tensor]) -> int:
    """Return the number of the sample that an argument is; the length of the views comes after the samples."""
    if isinstance(argument, int):
        return len(samples)
    return next(place for place, sample in enumerate(samples) if argument is sample)


def kernel(source: KernelSource, views: FlatViews, n_numbers: int) -> Kernel | None:
    """Return the kernel of a function for these views; None, and a warning once, where nothing can be compiled.

    It is compiled once for a process, for views of every size, and kept on disk by inductor.
    """
    dtypes = tuple([column[0].dtype for column in views.columns])
    parallel = torch.get_num_threads() > 1 and 2 * views.weights > GRAIN * len(views.sizes[0])
    return _kernel(source, dtypes, n_numbers, parallel)


Made = TypeVar("Made")


def or_none(make: Callable[..., Made]) -> Callable[..., Made | None]:
    """Make a function compile once for the same arguments, and return None, with a warning once, where it cannot."""

    @functools.cache
    @functools.wraps(make)
    def made(*arguments: Any) -> Made | None:
        try:
            return make(*arguments)
        except Exception as raised:  # whatever keeps a compiler from working
            error = getattr(raised, "inner_exception", raised)  # inductor wraps it
            if type(error) not in _SEEN:  # the message may name a file of its own for each kernel
                _SEEN.add(type(error))
                _warn(" ".join(f"{type(error).__name__}: {error}".split())[:200])
            return None

    return made


_kernel = or_none(Kernel)
_SEEN: set[type[Exception]] = set()


def _warn(reason: str) -> None:
    warnings.warn(
        "torchlasso goes on without its fused step, with torch's own and a prox after it: nothing could be compiled "
        f"({reason})",
        stacklevel=2,
    )
