"""Intervals by leaving out groups: they cover, where those for independent rows are too narrow."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from torchlasso.runs.quality.jackknife import BLOCKS, intervals_without
from torchlasso.runs.quality.judging import Judge


def mean_of(x: np.ndarray):
    return lambda mask: {"rmse": float(x[mask].mean())}


def test_with_a_row_in_each_group_it_is_the_interval_of_a_mean() -> None:
    """For a mean of n values the jackknife's variance is s²/n, with n − 1 degrees of freedom."""
    x = np.random.default_rng(0).uniform(1, 2, 20)
    [(low, high)] = intervals_without(mean_of(x), np.arange(20), mean_of(x)(slice(None))).values()
    t = 2.093024054408263  # of 19 degrees of freedom
    half = t * x.std(ddof=1) / math.sqrt(20)
    assert (low, high) == pytest.approx((x.mean() - half, x.mean() + half))


@pytest.mark.parametrize("groups", [8, 100])
def test_it_covers_where_rows_of_a_group_are_alike(groups: int) -> None:
    """The true mean is inside about 95 % of the intervals; of those for independent rows, of far fewer."""
    rng, of_rows = np.random.default_rng(1), np.repeat(np.arange(groups), 12)
    inside = narrow = 0
    for _ in range(200):
        x = 5 + rng.normal(size=groups)[of_rows] + 0.3 * rng.normal(size=len(of_rows))
        for numbers in (of_rows, np.arange(len(of_rows))):
            [(low, high)] = intervals_without(mean_of(x), numbers, mean_of(x)(slice(None))).values()
            if numbers is of_rows:
                inside += low <= 5 <= high
            else:
                narrow += low <= 5 <= high
    assert 0.9 <= inside / 200 <= 0.99
    assert narrow / 200 < 0.7


def test_no_more_than_so_many_blocks() -> None:
    x, seen = np.random.default_rng(0).normal(size=400), []

    def values(mask: np.ndarray) -> dict[str, float | None]:
        seen.append(mask)
        return {"rmse": float(np.square(x[mask]).mean())}

    intervals_without(values, np.repeat(np.arange(100), 4), values(np.ones(400, dtype=bool)))
    assert len(seen) == 1 + BLOCKS
    left_out = ~np.stack(seen[1:])
    assert (left_out.sum(axis=0) == 1).all()  # each row once
    assert {*left_out.reshape(BLOCKS, 100, 4).sum(axis=2).ravel()} == {0, 4}  # whole groups


def test_figures_of_classes_numbers_and_several_of_both() -> None:
    rng, groups = np.random.default_rng(0), torch.arange(20).repeat_interleave(15)
    y = torch.from_numpy(rng.integers(0, 3, 300))
    outputs = torch.from_numpy(rng.normal(size=(300, 3))) + 2 * torch.nn.functional.one_hot(y, 3)
    judge = Judge(("a", "b", "c"), (0.3, 0.3, 0.4))
    plain, grouped = judge.judge(outputs, y).scores, judge.judge(outputs, y, groups).scores
    assert {key: score.value for key, score in plain.items()} == {key: score.value for key, score in grouped.items()}
    assert {key: score.constant for key, score in plain.items()} == {k: score.constant for k, score in grouped.items()}
    assert plain["auc"].low < plain["auc"].value < plain["auc"].high
    for key, score in grouped.items():
        if key == "calibration_error":
            assert score.low is None
        else:
            assert score.low is not None
            assert score.high is not None
            assert score.low < score.value < score.high
    targets = torch.from_numpy(rng.normal(size=(300, 2)))
    found = Judge((), (0.0, 0.0), are_logits=False).judge(targets + 0.3 * outputs[:, :2], targets, groups)
    assert all(score.low < score.value < score.high for score in found.scores.values())
    assert found.scores["r2"].high <= 1


def test_where_there_is_no_interval() -> None:
    y = torch.tensor([0, 1] * 20)
    right, judge = 4.0 * torch.nn.functional.one_hot(y, 2), Judge(("a", "b"))
    assert judge.judge(right, y, torch.arange(40) // 20).scores["error"].low is None  # two groups
    assert judge.judge(right, y, torch.arange(40) // 4).scores["error"].low is None  # all right
    one_class = torch.cat([torch.zeros(10), torch.ones(2)]).long()
    outputs = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    assert judge.judge(outputs, one_class, torch.arange(12) // 2).scores["auc"].low is None  # without one group
