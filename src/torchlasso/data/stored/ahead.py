"""Batches that other processes read ahead, in order, through torch's ``DataLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader

T = TypeVar("T")
R = TypeVar("R")


class _Items(Generic[T, R]):
    """A data set whose items are the values of a function; an error is a value, to be raised where it is awaited."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function

    def __getitem__(self, argument: T) -> R | Exception:
        try:
            return self.function(argument)
        except Exception as error:
            return error


def read_ahead(function: Callable[[T], R], arguments: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the values of ``function``, such as batches for lists of row numbers, in the order of the arguments.

    No random number is drawn from torch's default generator, so that a training is the same with any number of workers.

    Args:
        function: called in the workers; its values are tensors, or what pickle can send.
        arguments: of the calls.
        workers: the number of processes; 0 for none.

    Raises:
        OSError: a worker was killed.
        Exception: whatever ``function`` raises.

    >>> list(read_ahead(abs, [-1, 2], workers=0))
    [1, 2]
    """
    if not workers:
        yield from map(function, arguments)
        return
    loader: DataLoader[Any] = DataLoader(
        _Items(function),  # type: ignore[arg-type]
        sampler=arguments,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    try:
        for value in loader:
            if isinstance(value, Exception):
                raise value
            yield value
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        why = "a process that reads rows ahead was killed, perhaps for lack of memory"
        raise OSError(f"{why}; resume the run, or begin again with fewer workers") from error


def _as_it_is(value: T) -> T:
    return value
