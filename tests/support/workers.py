"""Functions that the workers of an engine run: some of them kill their process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch


def squared(number: int, seed: int) -> tuple[int, float, int]:
    """The square, a sum that depends on the number of threads in its last bits, and this number."""
    rows = torch.randn(3_000_000, generator=torch.Generator().manual_seed(seed))
    return number**2, float(rows.square().sum()), torch.get_num_threads()


def squared_once_killed(number: int, seed: int, mark: Path) -> tuple[int, float, int]:
    """The same; the first process that comes to the number 1 is killed."""
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return squared(number, seed)


def killed_at_two(number: int) -> int:
    """The number; the process is killed at the number 2."""
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def refused(number: int) -> int:
    """Raise an error for the number 1."""
    if number == 1:
        raise ValueError("1 is refused")
    return number


def given(value: object) -> object:
    """The value."""
    return value


def first_number(layer: torch.nn.Module, numbers: torch.Tensor) -> float:
    """The first of the numbers."""
    return float(numbers[0, 0])
