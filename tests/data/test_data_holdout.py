"""Rows held out, and class indices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchlasso.data import class_indices, holdout, splits
from torchlasso.data.distinct import distinct, distinct_values, narrowed

seeded = settings(derandomize=True, deadline=None)
classes = st.lists(st.integers(0, 6), max_size=60).map(lambda y: torch.tensor(y, dtype=torch.int64))
fractions = st.floats(0, 0.999)


@seeded
@given(classes, fractions, st.integers(0, 5))
def test_holdout_of_classes(y, fraction, seed) -> None:
    kept, held = holdout(y, fraction, seed)
    assert sorted(kept.tolist() + held.tolist()) == list(range(len(y)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    assert set(y[kept].tolist()) == set(y.tolist())
    sizes, given_away = y.bincount(minlength=7), y[held].bincount(minlength=7)
    assert ((given_away - sizes * fraction).abs() <= 1 + 1e-6).all()
    most = torch.minimum((sizes.double() * fraction).floor().long() + 1, (sizes - 1).clamp(min=0))
    assert len(held) == min(round(len(y) * fraction), int(most.sum()))
    again = holdout(y, fraction, seed)
    assert torch.equal(kept, again[0])
    assert torch.equal(held, again[1])


@seeded
@given(st.integers(0, 50), fractions)
def test_holdout_of_targets(n, fraction) -> None:
    kept, held = holdout(torch.zeros(n, 2), fraction, 0)
    assert sorted(kept.tolist() + held.tolist()) == list(range(n))
    assert len(held) == min(round(n * fraction), max(n - 1, 0))


def test_holdout_is_stratified_and_seeded() -> None:
    y = torch.arange(1000) % 10
    _, held = holdout(y, 0.2, seed=1)
    assert y[held].bincount().tolist() == [20] * 10
    assert not torch.equal(held, holdout(y, 0.2, seed=2)[1])


def test_holdout_of_classes_too_small_for_a_share_each() -> None:
    y = torch.arange(100) % 50
    _, held = holdout(y, 0.2, seed=0)
    assert len(held) == 20
    assert y[held].unique().numel() == 20


def test_holdout_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    holdout(torch.arange(10), 0.5, seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_fraction_0_holds_nothing_out() -> None:
    kept, held = holdout(torch.tensor([0, 1, 1]), 0.0, seed=0)
    assert kept.tolist() == [0, 1, 2]
    assert held.shape == (0,)
    assert held.dtype == torch.int64


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_holdout_fraction_out_of_range(fraction) -> None:
    with pytest.raises(ValueError, match="fraction must be at least 0 and below 1"):
        holdout(torch.tensor([0, 1]), fraction, 0)


def test_holdout_of_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"y must have the shape \(n,\)"):
        holdout(torch.zeros(3, 2, dtype=torch.int64), 0.5, 0)


@seeded
@given(st.lists(st.integers(0, 20), min_size=1))
def test_class_indices_give_the_labels_back(labels) -> None:
    names = sorted({str(label) for label in labels})
    index = class_indices(np.array(labels), names)
    assert index.dtype == torch.int64
    assert [int(names[i]) for i in index.tolist()] == labels


def test_class_indices_of_other_kinds() -> None:
    assert class_indices(np.array([True, False]), ["0", "1"]).tolist() == [1, 0]
    assert class_indices(np.array(["b", "a"], dtype=object), ["a", "b"]).tolist() == [1, 0]
    assert class_indices(np.array([], dtype=np.int64), ["a"]).shape == (0,)


def test_class_indices_name_the_first_unknown_label() -> None:
    with pytest.raises(ValueError, match=r"^the label 'z' in row 1 .from 0. is not among .* 'a', 'b'$"):
        class_indices(np.array(["a", "z", "c"]), ["a", "b"])
    with pytest.raises(ValueError, match=r"class labels must have the shape \(n,\), not \(1, 2\)"):
        class_indices(np.zeros((1, 2)), ["a"])


@seeded
@given(st.lists(st.sampled_from([-(2**40), -129, -1, 0, 1, 127, 128, 2**31]), max_size=30), st.integers(0, 5))
def test_distinct_labels_are_those_of_numpy(y, shift) -> None:
    labels = np.array(y, dtype=np.int64) + shift
    values, places = distinct(labels)
    wanted, inverse = np.unique(labels, return_inverse=True)
    assert values.tolist() == distinct_values(labels).tolist() == wanted.tolist()
    assert places.tolist() == inverse.reshape(-1).tolist()
    small = narrowed(labels)
    assert small.tolist() == labels.tolist()
    assert distinct(small)[1].tolist() == places.tolist()


def test_holdout_takes_the_first_rows_of_each_class_of_a_random_order(monkeypatch) -> None:
    y = torch.arange(1400) % 7
    order = torch.randperm(1400, generator=torch.Generator().manual_seed(3)).tolist()
    wanted = sorted(row for k in range(7) for row in [i for i in order if y[i] == k][:50])
    for at_once in (1, 13, 1400):
        monkeypatch.setattr(splits, "AT_ONCE", at_once)
        assert holdout(y, 0.25, seed=3)[1].tolist() == wanted
