"""Timing of functions: in turns, for a bounded number of rounds, without candidates that are much slower."""

from __future__ import annotations

import time

import pytest
import torch

from torchlasso._core import timing

CPU = torch.device("cpu")


class Machine:
    """Functions that take as long as they say, by a clock that stands still otherwise."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, list[str]()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(time, "thread_time", lambda: self.now)

    def taking(self, name: str, *seconds: float):
        def function() -> None:
            self.calls.append(name)
            self.now += seconds[min(self.calls.count(name), len(seconds)) - 1]

        return function


def test_functions_take_turns_until_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    functions = {name: machine.taking(name, 9.0, 1.0) for name in "abc"}  # the first run is longer
    times = timing.interleaved(functions, 27 + 3 * 5, timing.clock(CPU))
    assert times == {name: [1.0] * 6 for name in "abc"}
    assert "".join(machine.calls) == "abc" + "abcbcacab" * 2


def test_each_runs_three_times_at_least_and_25_times_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds, rounds in ((1e-9, 3), (1e9, 25)):
        machine = Machine(monkeypatch)
        times = timing.interleaved(
            {"a": machine.taking("a", 1.0), "b": machine.taking("b", 1.2)}, seconds, timing.clock(CPU)
        )
        assert [len(each) for each in times.values()] == [rounds, rounds]


def test_much_slower_functions_drop_out(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    functions = {"slow": machine.taking("slow", 1.6), "a": machine.taking("a", 1.0), "b": machine.taking("b", 1.4)}
    times = timing.interleaved(functions, 1e9, timing.clock(CPU))
    assert {name: len(each) for name, each in times.items()} == {"slow": 3, "a": 25, "b": 25}
    times = timing.interleaved(
        {"a": machine.taking("a", 1.0), "slow": machine.taking("slow", 9.0)}, 1e9, timing.clock(CPU)
    )
    assert {name: len(each) for name, each in times.items()} == {"a": 3, "slow": 1}


def test_rounds_and_the_slow_limit_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    functions = {"a": machine.taking("a", 1.0), "slow": machine.taking("slow", 9.0)}
    for rounds, slow in (((7, 7), 10.0), ((5, float("inf")), float("inf"))):
        times = timing.interleaved(functions, 1e-9, timing.clock(CPU), rounds=rounds, slow=slow)
        assert times == {"a": rounds[0] * [1.0], "slow": rounds[0] * [9.0]}


@pytest.mark.parametrize("seconds", [(1.0, 50.0, 1.0), (50.0, 1.0)])
def test_one_that_was_held_up_once_stays(seconds: tuple[float, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    functions = {"a": machine.taking("a", 1.0), "b": machine.taking("b", *seconds)}
    assert len(timing.interleaved(functions, 1e9, timing.clock(CPU))["b"]) == 25


def test_the_clock_depends_on_the_device_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert timing.clock(CPU) is time.thread_time
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert timing.clock(CPU) is time.perf_counter
    waited = list[torch.device]()
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    timing.clock(torch.device("meta"))()
    assert waited == [torch.device("meta")]
