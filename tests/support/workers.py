"""Functions that the workers of an engine run: some of them kill their process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

from torchlasso.engine import Engine


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


def check_that_a_killed_worker_changes_no_bit(engine: Engine, mark: Path) -> None:
    """Run :func:`squared` in the workers of an engine; two threads would change the last bits of the sums."""
    numbers = range(4)
    wanted = Engine(jobs=1).results(squared, numbers, lambda number: (number, number))
    assert {threads for _, _, threads in wanted} == {1}
    with engine.started() as workers:
        found = dict(workers.run(squared_once_killed, numbers, lambda number: (number, number, mark)))
        assert [found[number] for number in numbers] == wanted
        assert mark.exists()
        with pytest.raises(ValueError, match="1 is refused"):
            dict(workers.run(refused, numbers, lambda number: (number,)))
