"""Seeding: the random numbers of ``torch.manual_seed``, on a machine with a GPU and without one."""

from __future__ import annotations

import pytest
import torch

from torchlasso._core.running import repeatable, seed_torch


def test_the_numbers_are_those_of_torch() -> None:
    torch.manual_seed(2**40 + 7)
    expected = torch.randn(3), torch.randperm(9)
    seed_torch(2**40 + 7)
    found = torch.randn(3), torch.randperm(9)
    assert all(map(torch.equal, found, expected))
    assert torch.initial_seed() == 2**40 + 7


def test_a_gpu_is_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(torch, "manual_seed", seeds.append)
    for there in (False, True):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda there=there: there)
        seed_torch(5)
    assert seeds == [5]


def test_random_numbers_repeat_and_go_on_as_before() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with repeatable(3):
            drawn.append(torch.randn(4))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)
