"""Figures of classifiers, against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from torchlasso.runs.quality import Judge, Quality, intervals
from torchlasso.runs.quality.classes import calibration_error
from torchlasso.training.evaluation import balanced_error_of_one_answer, evaluate_outputs
from torchlasso.training.losses import LOSSES

LOSS = LOSSES["cross-entropy"]


def sample(rows: int = 300, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs that know something, and unbalanced classes."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(2, classes + 2).double()
    y = torch.multinomial(shares, rows, replacement=True, generator=generator)
    outputs = torch.randn(rows, classes, generator=generator)
    outputs[torch.arange(rows), y] += 1.0
    return outputs, y


def judged(outputs: Tensor, y: Tensor, known: Tensor | None = None) -> Quality:
    names = [f"c{k}" for k in range(outputs.shape[1])]
    return Judge.fit(names, LOSS, y if known is None else known).judge(outputs, y)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_figures_are_those_of_their_definitions(classes: int) -> None:
    outputs, y = sample(classes=classes)
    found, guess = judged(outputs, y), outputs.argmax(dim=1)
    recalls, f1s, areas = [], [], []
    for k in range(classes):
        true, said = y == k, guess == k
        right = int((true & said).sum())
        recalls.append(right / int(true.sum()))
        f1s.append(2 * right / int(true.sum() + said.sum()))
        one, rest = outputs.double().softmax(dim=1)[:, k][true], outputs.double().softmax(dim=1)[:, k][~true]
        areas.append(float((one[:, None] > rest).double().mean()))
    values = {key: score.value for key, score in found.scores.items()}
    assert values["error"] == pytest.approx(float((guess != y).double().mean()))
    assert values["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert values["macro_f1"] == pytest.approx(np.mean(f1s))
    assert values["auc"] == pytest.approx(np.mean(areas))
    assert values["log_loss"] == pytest.approx(nn.functional.cross_entropy(outputs.double(), y).item())
    assert [each.recall for each in found.classes] == pytest.approx(recalls)
    assert [each.f1 for each in found.classes] == pytest.approx(f1s)
    assert [each.support for each in found.classes] == y.bincount().tolist()
    table = torch.tensor(found.confusion)
    assert table.sum(dim=0).tolist() == guess.bincount(minlength=classes).tolist()
    assert table.sum(dim=1).tolist() == y.bincount().tolist()
    assert table.diag().sum() == (guess == y).sum()


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("digits", [0, 3])  # without any, most outputs are ties
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_the_figures_are_those_of_scikit_learn(classes: int, digits: int) -> None:
    outputs, y = sample(60, classes, seed=classes)
    outputs = outputs.round(decimals=digits).double()
    outputs[:, 1] -= 3.0 * (classes > 3)  # a class that is hardly predicted
    found, guess, likely = judged(outputs, y), outputs.argmax(dim=1), outputs.softmax(dim=1)
    values = {key: score.value for key, score in found.scores.items()}
    assert values["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, guess), rel=1e-12)
    assert values["macro_f1"] == pytest.approx(metrics.f1_score(y, guess, average="macro"), rel=1e-12)
    area = metrics.roc_auc_score(y, likely if classes > 2 else likely[:, 1], multi_class="ovr")
    assert values["auc"] == pytest.approx(area, rel=1e-12)
    assert found.confusion == tuple(map(tuple, metrics.confusion_matrix(y, guess).tolist()))
    parts = metrics.precision_recall_fscore_support(y, guess, zero_division=math.nan)
    for each, *theirs, support in zip(found.classes, *parts, strict=True):
        ours = [math.nan if part is None else part for part in (each.precision, each.recall, each.f1)]
        assert ours == pytest.approx(theirs, rel=1e-12, nan_ok=True)
        assert each.support == support


def test_the_balanced_error_of_each_epoch_is_that_of_the_figures() -> None:
    outputs, y = sample(classes=5)
    value = judged(outputs, y).scores["balanced_accuracy"].value
    assert evaluate_outputs(outputs, LOSS, y).balanced_error == pytest.approx(1 - (value or 0.0))


def test_a_constant_answer_is_at_chance() -> None:
    """The classifier of a screening that answers "no" to every row has few errors."""
    y = (torch.arange(1000) % 20 == 0).long()
    outputs = torch.tensor([[3.0, -3.0]]).expand(1000, -1)
    found = judged(outputs, y)
    assert found.scores["error"].value == found.scores["error"].constant == 0.05
    assert found.scores["balanced_accuracy"].value == found.scores["balanced_accuracy"].constant == 0.5
    assert found.scores["auc"].value == 0.5
    assert (found.classes[1].precision, found.classes[1].recall) == (None, 0.0)
    assert evaluate_outputs(outputs, LOSS, y).balanced_error == balanced_error_of_one_answer(y) == 0.5


def test_the_constant_answer_has_the_shares_of_the_training_rows() -> None:
    outputs, y = sample(classes=2)
    known = torch.tensor([0, 0, 0, 1])
    found = judged(outputs, y, known)
    assert found.constant == (0.75, 0.25)
    assert found.scores["error"].constant == pytest.approx(float((y == 1).double().mean()))
    losses = torch.tensor(found.constant).log().neg()[y]
    assert found.scores["log_loss"].constant == pytest.approx(float(losses.double().mean()), rel=1e-6)
    nothing = Judge(("a", "b")).judge(outputs, y)
    assert nothing.constant == ()
    assert {score.constant for score in nothing.scores.values()} == {None}


def test_classes_without_rows() -> None:
    outputs, y = sample(classes=4)
    y[y == 2] = 1
    found = judged(outputs, y)
    guess = outputs.argmax(dim=1)
    recalls = [float((guess[y == k] == k).double().mean()) for k in (0, 1, 3)]
    assert found.scores["balanced_accuracy"].value == pytest.approx(np.mean(recalls))
    assert evaluate_outputs(outputs, LOSS, y).balanced_error == pytest.approx(1 - np.mean(recalls))
    assert found.scores["auc"].value is None
    assert (found.classes[2].recall, found.classes[2].support) == (None, 0)
    assert found.classes[2].precision == 0.0


def test_a_single_class() -> None:
    found = judged(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64))
    values = {key: score.value for key, score in found.scores.items()}
    assert (values["error"], values["balanced_accuracy"]) == (0.0, 1.0)
    assert values["auc"] is values["log_loss"] is None


def test_many_classes_have_no_matrix() -> None:
    outputs, y = sample(rows=2000, classes=201)
    found = judged(outputs, y)
    assert found.confusion == ()
    assert found.scores["auc"].value is None
    assert len(found.classes) == 201


def test_outputs_of_another_loss_are_no_probabilities() -> None:
    outputs, y = sample()
    found = Judge.fit("abc", nn.functional.multi_margin_loss, y).judge(outputs, y)
    assert set(found.scores) == {"error", "balanced_accuracy", "macro_f1", "auc"}


def test_infinite_outputs_are_refused() -> None:
    outputs, y = sample()
    outputs[3, 1] = math.nan
    with pytest.raises(FloatingPointError, match="infinite or NaN for 1 of 300 rows"):
        judged(outputs, y)


def test_the_value_of_one_measure_is_that_of_all() -> None:
    outputs, y = sample()
    judge = Judge.fit("abc", LOSS, y)
    whole = judge.judge(outputs, y)
    assert {key: judge.value(key, outputs, y) for key in judge.measures} == {
        key: score.value for key, score in whole.scores.items()
    }


def test_calibration_error_by_bins() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.3, 1.0, 500)
    confidence[0] = 1.0
    right = generator.uniform(size=500) < confidence**2
    found = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & ((confidence < (k + 1) / 15) | (k == 14))
        if inside.any():
            found += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration_error(right, confidence) == pytest.approx(found)


# --- intervals ---


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 8])
def test_intervals_hold_the_figure_of_the_population(classes: int) -> None:
    """Of 200 samples from a large population, about 95 % have the population's figures in their intervals."""
    outputs, y = sample(rows=100_000, classes=classes)
    whole = judged(outputs, y)
    keys = ("error", "balanced_accuracy", "log_loss", "auc", *(("macro_f1",) if classes == 2 else ()))
    held = dict.fromkeys(keys, 0)
    for rows in torch.randperm(len(y), generator=torch.Generator().manual_seed(1))[: 200 * 150].view(200, 150):
        found = judged(outputs[rows], y[rows], y)
        for key in keys:
            score, truth = found.scores[key], whole.scores[key].value or 0.0
            held[key] += (score.low or 0.0) <= truth <= (score.high or 0.0)
    assert all(0.9 * 200 <= count <= 0.995 * 200 for count in held.values()), held


def test_an_interval_holds_its_value_at_the_ends_of_the_scale() -> None:
    y = torch.arange(60) % 3
    for outputs in (nn.functional.one_hot(y).float(), -nn.functional.one_hot(y).float()):
        for key, score in judged(outputs, y).scores.items():
            if score.low is not None:
                assert score.low - 1e-9 <= score.value <= score.high + 1e-9, key
    right = judged(nn.functional.one_hot(y).float(), y).scores
    assert right["error"].low == 0 < right["error"].high < 0.07  # not one of no width
    assert 0.85 < right["balanced_accuracy"].low < 1 == right["balanced_accuracy"].high


@pytest.mark.slow
def test_the_interval_of_an_auc_is_that_of_delong() -> None:
    """For two classes, of the sum over pairs as it is written in the paper; for more, of rows left out."""
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1], [30, 50])
    scores = np.round(generator.normal(size=80) + truth, 1)  # with ties
    kernel = (scores[30:, None] > scores[:30]) + 0.5 * (scores[30:, None] == scores[:30])
    area, of_rows = kernel.mean(), kernel.mean(axis=1).var(ddof=1) / 50 + kernel.mean(axis=0).var(ddof=1) / 30
    low, high = intervals.of_mean_auc(truth, np.stack([-scores, scores], axis=1))
    assert (low + high) / 2 == pytest.approx(area)
    assert (high - low) / 2 == pytest.approx(1.959964 * math.sqrt(of_rows))

    outputs, y = sample(rows=300, classes=4)
    likely = outputs.double().softmax(dim=1).numpy()
    score = judged(outputs, y).scores["auc"]

    def area_of(rows: list[int]) -> float:
        return float(metrics.roc_auc_score(y[rows], likely[rows], multi_class="ovr"))

    assert score.value == pytest.approx(area_of([*range(300)]), rel=1e-12)
    without = np.array([area_of(rows) for rows in leave_one_out(300)])
    variance = 299 / 300 * np.square(without - without.mean()).sum()
    assert (score.high - score.low) / 2 == pytest.approx(1.96 * math.sqrt(variance), rel=0.05)
    assert (score.low + score.high) / 2 == pytest.approx(score.value)
    assert intervals.of_mean_auc(y.numpy(), likely) == (score.low, score.high)


def leave_one_out(rows: int) -> list[list[int]]:
    return [[i for i in range(rows) if i != left] for left in range(rows)]


def test_an_auc_without_an_interval() -> None:
    y = torch.arange(60) % 3
    assert judged(nn.functional.one_hot(y).float(), y).scores["auc"].low is None  # no pair is wrong
    assert judged(nn.functional.one_hot(y % 2).float(), y % 2).scores["auc"].low is None
    outputs, _ = sample(rows=21, classes=3)
    y = torch.tensor([*[0, 1] * 10, 2])
    assert judged(outputs, y).scores["auc"].low is None  # a class of one row
