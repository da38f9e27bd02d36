"""Results of functions that are kept in a folder: a call with the same arguments reads them there."""

from __future__ import annotations

import hashlib
import io
import marshal
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchlasso.storage import checkpoint

ENDING = ".safetensors"
_folder: ContextVar[Path | None] = ContextVar("folder of kept results", default=None)


@contextmanager
def keep_results(folder: str | Path) -> Iterator[None]:
    """Keep the results of the trainings that estimators make, in a folder, each as soon as it is there.

    These are the models of :class:`~torchlasso.estimators.StabilitySelection` for halves of the rows, and the models of
    the folds of a cross-validation. After an interruption, the same program finds the files and trains only the rest;
    the result is the same to the bit. A file belongs to a call with all of its arguments (the estimator, the rows, the
    seed) and to the versions of torch and of this package. With anything else, the training is made anew; of your own
    functions only their own code counts, not what they call. The files hold numbers and no code. If several machines
    work together, the folder has to be one that all of them see.

    Args:
        folder: is made if necessary. Remove it once you have the result.

    Examples:
        >>> import tempfile
        >>> from torchlasso.estimators import SparseRegressor, StabilitySelection
        >>> x = np.random.default_rng(0).normal(size=(60, 5))
        >>> selector = StabilitySelection(SparseRegressor(hidden=()), pairs=3, random_state=0)
        >>> with tempfile.TemporaryDirectory() as folder, keep_results(folder):
        ...     _ = selector.fit(x, x[:, 2])
        ...     len(list(Path(folder).iterdir()))
        6
    """
    path = Path(folder).absolute()
    path.mkdir(parents=True, exist_ok=True)
    token = _folder.set(path)
    try:
        yield
    finally:
        _folder.reset(token)


def call_kept(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, or read its result in the folder of :func:`keep_results`; without a folder, call it.

    Args:
        function: its results are arrays of numbers, numbers, or tuples of these.
        arguments: anything that joblib can send to another process.
    """
    called, given = kept_calls(function, lambda key: arguments)
    return called(*given(None))


def kept_calls(
    function: Callable[..., Any], arguments: Callable[[Any], tuple[Any, ...]]
) -> tuple[Callable[..., Any], Callable[[Any], tuple[Any, ...]]]:
    """Return the function and the arguments of calls in other processes, whose results are kept if there is a folder.

    Args:
        function: see :func:`call_kept`.
        arguments: the key of a call ↦ its arguments.
    """
    folder = _folder.get()
    if folder is None:
        return function, arguments

    def placed(key: Any) -> tuple[Any, ...]:
        own = arguments(key)
        return (_place_of(folder, function, own), function, *own)

    return call_once, placed


def _place_of(folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Path:
    """Return the file of a call, whose name is a digest of the function and its arguments."""
    return folder / f"{_digest((sys.modules[__package__].__version__, torch.__version__, function, arguments))}{ENDING}"


def call_once(place: Path, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result in a file; without the file, or if it is damaged, call the function and write it."""
    try:
        return _as_arrays(checkpoint.load_state(place))
    except (FileNotFoundError, ValueError):
        found = _as_tensors(function(*arguments))
        checkpoint.save_state(place, found)
        return _as_arrays(found)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_as_tensors, value))
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C"))
    return value.item() if isinstance(value, np.generic) else value


def _as_arrays(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_as_arrays, value))
    return value.numpy() if isinstance(value, Tensor) else value


def _digest(value: Any) -> str:
    """Return a digest of a value, the same in every process.

    An object counts by what it holds: whether two equal texts are one object differs between processes.
    """
    try:
        content = _pickled(value, by_identity=False)
    except ValueError:  # an object that contains itself
        content = _pickled(value, by_identity=True)
    return hashlib.sha256(content).hexdigest()


def _pickled(value: Any, *, by_identity: bool) -> bytes:
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    pickler.fast = not by_identity
    pickler.dump(value)
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    """A pickler whose content is never read again: it takes tensors by their numbers, and functions by their code."""

    def reducer_override(self, each: Any) -> Any:
        if isinstance(each, Tensor):  # torch would write the address of its memory
            numbers = each.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            return bytes, (str((each.dtype, tuple(each.shape))).encode() + numbers,)
        if isinstance(each, FunctionType) and ("<" in each.__qualname__ or each.__module__ == "__main__"):
            inner = [cell.cell_contents for cell in each.__closure__ or ()]
            given = (each.__defaults__, each.__kwdefaults__, inner)
            return tuple, ((each.__module__, each.__qualname__, marshal.dumps(each.__code__, 2), given),)
        return NotImplemented
