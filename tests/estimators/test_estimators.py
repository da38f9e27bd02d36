"""The estimators' conventions, groups, numbers of features, and what they refuse."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.feature_selection import SelectFromModel
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from torchlasso.estimators import FeatureSelector, SparseClassifier, SparseRegressor, StabilitySelection

SHORT: dict[str, Any] = {"hidden": (8,), "epochs": 50, "points": 3, "random_state": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        SparseRegressor(hidden=(), points=2),
        SparseClassifier(hidden=(), points=2),
        SparseRegressor(0.001, hidden=(4,), points=1, epochs=8, lr=0.1),
        SparseClassifier(0.001, hidden=(4,), points=1, epochs=8, lr=0.1),
    ],
    ids=["linear regressor", "linear classifier", "regressor", "classifier"],
)
@pytest.mark.filterwarnings("ignore")
def test_they_follow_the_conventions_of_scikit_learn(estimator: Any) -> None:
    results = check_estimator(estimator, on_fail=None)
    failed = [(each["check_name"], each["exception"]) for each in results if each["status"] == "failed"]
    assert failed == []
    assert len(results) > 50


def waves(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Twenty features, of which three matter, two of them only together."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 20))
    return x, np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * rng.normal(size=n)


@pytest.mark.slow
def test_a_network_finds_the_features_that_matter_where_no_linear_model_could() -> None:
    x, y = waves()
    model = SparseRegressor(0.02, features=3, points=3, random_state=0).fit(x, y)
    assert model.support_.nonzero()[0].tolist() == [0, 1, 2]
    assert set(np.argsort(-model.feature_importances_)[:3]) == {0, 1, 2}
    other = x.copy()
    other[:, ~model.support_] = 1e6  # what it does not read cannot change its outputs
    assert (model.predict(other) == model.predict(x)).all()
    assert model.score(x, y) > 0.7
    assert SparseRegressor(hidden=()).fit(x, y).score(x, y) < 0.4


@pytest.mark.parametrize("hidden", [(), (8,)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_features_as_were_asked_for(count: int, hidden: tuple[int, ...]) -> None:
    x, y = make_classification(200, 12, n_informative=6, random_state=0)
    model = SparseClassifier(**{**SHORT, "hidden": hidden}, features=count).fit(x, y)
    assert model.support_.sum() == count
    assert model.path_[0].lam == model.lam_


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_importances_are_the_largest_lam_at_which_a_feature_lives(hidden: tuple[int, ...]) -> None:
    x, y = make_classification(200, 12, n_informative=6, random_state=0)
    model = SparseClassifier(**{**SHORT, "hidden": hidden, "points": 8}).fit(x, y)
    lams = [point.lam for point in model.path_]
    assert lams == sorted(lams)
    assert lams[0] == model.lam_ == 0.01
    assert set(model.feature_importances_) <= {0.0, *lams}
    assert ((model.feature_importances_ > 0) >= model.support_).all()


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_groups_leave_together_and_what_is_kept_stays(hidden: tuple[int, ...]) -> None:
    x, y = make_classification(200, 12, n_informative=6, random_state=0)
    groups = [[0, 1, 2], [3, 4], [5, 6, 7, 8]]
    settings = {**SHORT, "hidden": hidden, "points": 6}
    for lam in (0.05, 0.2):
        model = SparseClassifier(lam, **settings, feature_groups=groups, keep=[11]).fit(x, y)
        for point in model.path_:
            assert all(len(set(point.live[group])) == 1 for group in groups)
            assert point.live[11]


def test_groups_by_name_after_a_column_transformer() -> None:
    rng = np.random.default_rng(0)
    colour = rng.choice(["red", "green", "blue"], 200)
    frame = pd.DataFrame({"colour": colour, "size": rng.normal(size=200), "noise": rng.normal(size=200)})
    encode = ColumnTransformer(
        [("cat", OneHotEncoder(sparse_output=False), ["colour"]), ("num", StandardScaler(), ["size", "noise"])]
    ).set_output(transform="pandas")
    model = SparseRegressor(0.1, hidden=(), feature_groups={"colour": "cat__colour_*"})
    pipeline = make_pipeline(encode, model).fit(frame, (colour == "red") + 0.5 * frame["size"])
    assert model.feature_names_in_[model.support_].tolist() == [
        *(f"cat__colour_{c}" for c in ("blue", "green", "red")),
        "num__size",
    ]
    assert pipeline.score(frame, (colour == "red") + 0.5 * frame["size"]) > 0.3


def test_the_same_seed_gives_the_same_model_to_the_bit_and_no_seed_is_touched() -> None:
    import torch

    x, y = make_classification(100, 6, random_state=0)
    state = torch.get_rng_state()
    found = [SparseClassifier(**SHORT).fit(x, y).decision_function(x) for _ in range(2)]
    assert (found[0] == found[1]).all()
    assert (found[0] != SparseClassifier(**{**SHORT, "random_state": 1}).fit(x, y).decision_function(x)).any()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_pickled_model_and_a_sparse_matrix_give_the_same(hidden: tuple[int, ...]) -> None:
    x, y = make_classification(100, 6, random_state=0)
    x = np.where(x > 0, x, 0.0)
    model = SparseClassifier(**{**SHORT, "hidden": hidden}).fit(csr_matrix(x), y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.testing.assert_allclose(model.predict_proba(csr_matrix(x)), model.predict_proba(x), rtol=1e-12)


@pytest.mark.parametrize("estimator", [SparseRegressor(hidden=(), standardize=True), StabilitySelection()])
def test_a_sparse_matrix_that_would_be_too_large_is_refused(estimator: Any) -> None:
    x = csr_matrix((200_000, 100_000))
    with pytest.raises(ValueError, match=r"X is sparse, 200,000 × 100,000, .* at most 1,000,000,000 are possible"):
        estimator.fit(x, np.arange(200_000) / 7)


def test_a_frame_of_polars_keeps_its_names() -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    x, y = make_classification(60, 4, random_state=0)
    frame = polars.DataFrame(x, schema=["age", "dose", "weight", "height"])
    model = SparseClassifier(features=2, hidden=()).fit(frame, y)
    assert model.feature_names_in_.tolist() == frame.columns
    assert (model.predict(frame) == SparseClassifier(features=2, hidden=()).fit(x, y).predict(x)).all()
    selector = FeatureSelector(SparseClassifier(hidden=()), features=2).set_output(transform="polars")
    assert set(selector.fit_transform(frame, y).columns) <= set(frame.columns)
    assert selector.transform(frame).shape == (60, 2)


def test_in_a_search_and_as_a_selector() -> None:
    x, y = make_classification(200, 12, n_informative=3, shuffle=False, random_state=0)
    search = GridSearchCV(SparseClassifier(hidden=()), {"lam": [0.3, 0.03]}, cv=3).fit(x, y)
    assert search.best_params_["lam"] == 0.03
    selector = SelectFromModel(SparseClassifier(features=4, hidden=()), threshold=1e-12).fit(x, y)
    assert selector.get_support().sum() == 4


def test_class_weights_are_row_weights() -> None:
    x, y = make_classification(200, 6, weights=[0.8], random_state=0)
    balanced = SparseClassifier(hidden=(), class_weight="balanced").fit(x, y)
    weights = np.where(y == 1, 1 / (y == 1).mean(), 1 / (y == 0).mean())
    np.testing.assert_allclose(balanced.coef_, SparseClassifier(hidden=()).fit(x, y, weights).coef_, atol=1e-8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"lam": -1.0}, "lam must be a number of at least 0; got -1.0"),
        ({"lam": float("nan")}, "lam must be a number of at least 0; got nan"),
        ({"l1_ratio": 0}, "l1_ratio must be a number above 0; got 0"),
        ({"l1_ratio": 1.5}, "l1_ratio must be above 0 and at most 1; got 1.5"),
        ({"features": 0}, "features must be a whole number of at least 1; got 0"),
        ({"features": 2.5}, "features must be a whole number of at least 1; got 2.5"),
        ({"features": 7}, "features must be at most the number of features, 6; got 7"),
        ({"hidden": (0,)}, "a width of hidden must be a whole number of at least 1; got 0"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"feature_groups": [[0, 1], [1, 2]]}, "groups must not overlap; column 1 of group 1 is in two"),
        ({"feature_groups": [[0, 9]]}, "group 0 has 9, which is no column: there are 6, from 0 on"),
        (
            {"feature_groups": {"a": "cat_*"}},
            "group a has 'cat_*', which no column is called: the columns have no names",
        ),
        ({"feature_groups": [[0, 1]], "keep": [0]}, "keep has a part of group 0; keep all of it, or nothing"),
    ],
)
def test_parameters_that_are_no_use(parameters: dict[str, Any], message: str) -> None:
    x, y = make_classification(50, 6, random_state=0)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SparseClassifier(**parameters).fit(x, y)


def test_duplicated_and_constant_columns_leave_one_clear_answer() -> None:
    x, y = make_classification(100, 4, n_informative=2, random_state=0)
    twice = np.hstack([x, x, np.ones((100, 2))])
    model = SparseClassifier(0.05, hidden=()).fit(twice, y)
    single = SparseClassifier(0.05, hidden=()).fit(x, y)
    np.testing.assert_allclose(model.decision_function(twice), single.decision_function(x), atol=1e-6)
    assert not model.support_[-2:].any()


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="SparseClassifier needs rows of two classes at least; got one class, 1"):
        SparseClassifier().fit(np.eye(3), [1, 1, 1])


def test_a_model_with_hidden_layers_has_no_coefficients() -> None:
    model = SparseRegressor(**SHORT).fit(np.eye(3), [1.0, 2.0, 3.0])
    assert not hasattr(model, "coef_")
    assert not hasattr(model, "intercept_")
