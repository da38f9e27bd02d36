"""Figures of regressions, against their definitions, and the test for a gap."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchlasso.runs.quality import Judge, Quality
from torchlasso.runs.quality.gap import chance_of_gap


def sample(rows: int = 200, targets: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = 5 + 2 * torch.randn(rows, targets, generator=generator)
    return y + torch.randn(rows, targets, generator=generator) * torch.arange(1, targets + 1), y


def judged(outputs: Tensor, y: Tensor, known: Tensor | None = None) -> Quality:
    return Judge.fit((), nn.functional.mse_loss, y if known is None else known).judge(outputs, y)


@pytest.mark.parametrize("targets", [1, 3])
def test_the_figures_of_numbers_are_those_of_their_definitions(targets: int) -> None:
    outputs, y = sample(targets=targets)
    found = judged(outputs, y)
    errors = (outputs - y).double()
    mse, mae = errors.square().mean(dim=0), errors.abs().mean(dim=0)
    r2 = 1 - mse / y.double().var(dim=0, correction=0)
    for key, wanted in {"r2": r2, "rmse": mse.sqrt(), "mae": mae}.items():
        assert found.scores[key].value == pytest.approx(float(wanted.mean()))
        if targets > 1:
            assert [each.scores[key].value for each in found.targets] == pytest.approx(wanted.tolist())
            assert found.scores[key].low is None
            assert all(each.scores[key].low < each.scores[key].value for each in found.targets)
    assert len(found.targets) == (targets if targets > 1 else 0)
    assert found.scores["r2"].constant == pytest.approx(0, abs=1e-9)
    assert found.scores["rmse"].constant == pytest.approx(float(y.double().std(dim=0, correction=0).mean()))


def test_the_constant_answer_is_the_mean_of_the_training_rows() -> None:
    outputs, y = sample()
    found = judged(outputs, y, torch.tensor([[1.0], [3.0]]))
    assert found.constant == (2.0,)
    assert found.scores["mae"].constant == pytest.approx(float((y - 2).abs().mean()), rel=1e-6)
    assert (found.scores["r2"].constant or 0.0) < 0


@pytest.mark.parametrize("y", [torch.ones(1, 1), torch.ones(9, 1)], ids=["one row", "all equal"])
def test_targets_without_a_spread_have_no_r2(y: Tensor) -> None:
    found = judged(y + 0.5, y).scores
    assert found["r2"].value is None
    assert found["rmse"].value == found["mae"].value == 0.5


@pytest.mark.slow
def test_intervals_of_numbers_hold_the_figure_of_the_population() -> None:
    outputs, y = sample(rows=100_000)
    whole, held = judged(outputs, y), {"r2": 0, "rmse": 0, "mae": 0}
    for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(1))[: 200 * 150].view(200, 150):
        found = judged(outputs[rows], y[rows])
        for key in held:
            score, truth = found.scores[key], whole.scores[key].value or 0.0
            held[key] += (score.low or 0.0) <= truth <= (score.high or 0.0)
    assert all(0.9 * 200 <= count <= 0.995 * 200 for count in held.values()), held


# --- the gap between validation and test ---


def halves(outputs: Tensor, y: Tensor, first: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (outputs[:first], outputs[first:]), (y[:first], y[first:])


@pytest.mark.parametrize("kind", ["classes", "numbers", "targets"])
def test_samples_of_the_same_rows_rarely_differ(kind: str) -> None:
    """Of 400 pairs of samples, chance lets about 20 differ at 5 %, and hardly any at 0.1 %."""
    chances = []
    for seed in range(400):
        if kind == "classes":
            generator = torch.Generator().manual_seed(seed)
            y = torch.randint(3, (200,), generator=generator)
            outputs = torch.randn(200, 3, generator=generator) + nn.functional.one_hot(y)
        else:
            outputs, y = sample(targets=1 if kind == "numbers" else 3, seed=seed)
        chances.append(chance_of_gap(*halves(outputs, y, 80)))
    found = torch.tensor(chances)
    assert int((found < 0.05).sum()) <= 32
    assert int((found < 0.001).sum()) <= 2


def test_a_gap_is_found() -> None:
    outputs, y = sample()
    outputs[100:] += 3 * (outputs[100:] - y[100:])
    assert chance_of_gap(*halves(outputs, y, 100)) < 0.001
    classes = torch.arange(200) % 4
    known = nn.functional.one_hot(classes).float()
    known[100:130] = known[100:130].roll(1, dims=1)
    assert chance_of_gap(*halves(known, classes, 100)) < 0.001


def test_groups_that_differ_are_no_gap() -> None:
    """Rows of a group are right or wrong together: as single rows, 12 against 8 groups often look like a gap."""
    single, grouped = 0, 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        groups = torch.arange(20).repeat_interleave(15)
        y = torch.zeros(300, dtype=torch.int64)
        wrong = torch.rand(300, generator=generator) < torch.rand(20, generator=generator)[groups]
        outputs, targets = halves(torch.stack([~wrong, wrong], dim=1).float(), y, 180)
        single += chance_of_gap(outputs, targets) < 0.001
        grouped += chance_of_gap(outputs, targets, (groups[:180], groups[180:])) < 0.001
    assert single > 20
    assert grouped <= 2
    wrong[180:], outputs = True, torch.zeros(300, 2)
    outputs[wrong, 1], outputs[~wrong, 0] = 1.0, 1.0
    parts, targets = halves(outputs, y, 180)
    assert chance_of_gap(parts, targets, (groups[:180], groups[180:])) < 0.01


def test_perfect_numbers_have_no_gap() -> None:
    _, y = sample()
    assert chance_of_gap(*halves(y, y, 100)) == 1.0
