"""Results of estimators' trainings in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from tests.support import workers
from torchlasso.estimators import SparseClassifier, SparseClassifierCV, SparseRegressor, StabilitySelection
from torchlasso.kept_results import call_kept, keep_results
from torchlasso.storage import checkpoint

ROWS = np.random.default_rng(0).normal(size=(80, 6))
CLASSES = np.where(ROWS[:, 2] > 0, "well", "ill")

ESTIMATORS: list[Any] = [
    pytest.param(
        lambda: StabilitySelection(SparseClassifier(hidden=(), tol=1e-4), pairs=2, random_state=0), id="linear"
    ),
    pytest.param(
        lambda: StabilitySelection(SparseClassifier(lam=0.01, hidden=(4,), epochs=3), pairs=2, random_state=0),
        id="networks at once",
    ),
    pytest.param(
        lambda: StabilitySelection(SparseClassifier(lam=0.01, hidden=(4, 4), epochs=3), pairs=2, random_state=0),
        id="networks one by one",
    ),
    pytest.param(lambda: StabilitySelection(LogisticRegression(), pairs=2, random_state=0), id="scikit-learn"),
    pytest.param(lambda: SparseClassifierCV(hidden=(), cv=3, lams=4, tol=1e-4, random_state=0), id="cross-validation"),
    pytest.param(
        lambda: SparseClassifierCV(hidden=(), cv=3, lams=4, tol=1e-4, scoring="neg_log_loss", random_state=0),
        id="a scoring",
    ),
]


def bits(fitted: Any) -> list[bytes]:
    return [fitted.scores_.tobytes(), fitted.support_.tobytes(), fitted.lams_.tobytes()]


@pytest.mark.parametrize("made", ESTIMATORS)
def test_a_second_fit_trains_nothing_and_is_the_same(
    made: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = made().fit(ROWS, CLASSES)
    with keep_results(tmp_path):
        first = made().fit(ROWS, CLASSES)
        kept = {path.name for path in tmp_path.iterdir()}
        assert kept
        monkeypatch.setattr(checkpoint, "save_state", None)
        again = made().set_params(n_jobs=1).fit(ROWS.copy(), CLASSES.copy())
    assert bits(plain) == bits(first) == bits(again)
    assert kept == {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(lambda made, x: (made, x + 1e-15), id="rows"),
        pytest.param(lambda made, x: (made.set_params(random_state=1), x), id="seed"),
        pytest.param(lambda made, x: (made.set_params(estimator__tol=1e-3), x), id="tolerance"),
    ],
)
def test_anything_else_is_trained_anew(changed: Callable[[Any, Any], tuple[Any, Any]], tmp_path: Path) -> None:
    def made() -> Any:
        return StabilitySelection(SparseRegressor(hidden=(), tol=1e-4), pairs=2, random_state=0)

    with keep_results(tmp_path):
        made().fit(ROWS, ROWS[:, 1])
        before = set(tmp_path.iterdir())
        other, x = changed(made(), ROWS)
        other.fit(x, x[:, 1])
    assert len(set(tmp_path.iterdir()) - before) == 4


def test_functions_count_by_their_code_and_what_they_enclose(tmp_path: Path) -> None:
    calls: list[float] = []

    def times(factor: float) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: calls.append(factor) or x * factor  # type: ignore[func-returns-value]

    with keep_results(tmp_path):
        for factor in (2.0, 3.0, 2.0):
            assert call_kept(times(factor), np.ones(2)).tolist() == [factor, factor]
            assert call_kept(lambda x, factor=factor: x + factor, np.ones(2)).tolist() == [1 + factor, 1 + factor]
    assert calls == [2.0, 3.0, 2.0]  # the list in the function is another one each time


@pytest.mark.parametrize(
    "value", [1.5, np.float64(0.1), (np.arange(3), np.ones((2, 2), np.float32), 7), np.ones(3) > 0]
)
def test_results_are_the_same_when_they_are_read(value: Any, tmp_path: Path) -> None:
    with keep_results(tmp_path):
        first, again = (call_kept(workers.given, value) for _ in range(2))
    for one, other in zip(*((each if isinstance(each, tuple) else (each,)) for each in (first, again)), strict=True):
        assert type(one) is type(other)
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.array_equal(one, other)


def test_tensors_and_modules_count_by_their_numbers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    with keep_results(tmp_path):
        for layer in (*layers, layers[0]):
            numbers = layer.weight.detach().T.bfloat16()
            assert call_kept(workers.first_number, layer, numbers) == float(numbers[0, 0])
    assert len(list(tmp_path.iterdir())) == 2
