"""Dimensions as products and sums of axes: unified dimensions stay the same."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchlasso.graph.axes import Axis, axes_of, concatenated, count_of, indices, pinned, product, resolve, units_in
from torchlasso.graph.unification import same_count, sliced, unify


def kept_of(dropped: dict[Axis, int]):
    return lambda axis: torch.tensor([i for i in range(axis.size) if dropped.get(axis) != i], dtype=torch.long)


def test_an_axis_that_is_bound_to_another_is_that_one():
    a, b = Axis(4), Axis(4)
    unify(a, b, "")
    assert resolve(a) is resolve(b)


def test_a_view_splits_an_axis_and_another_view_of_it_agrees():
    whole, heads, size = Axis(12), Axis(3), Axis(4)
    unify(whole, product((heads, size)), "")
    again = product((Axis(3), Axis(4)))
    unify(again, whole, "")
    assert list(axes_of(again)) == [heads, size]


@pytest.mark.parametrize(
    ("combined", "ours", "theirs", "common"),
    [(product, (4, 6), (8, 3), [4, 2, 3]), (concatenated, (2, 5), (4, 3), [2, 2, 3])],
)
def test_both_are_divided_where_either_is(combined, ours, theirs, common):
    first, second = combined(map(Axis, ours)), combined(map(Axis, theirs))
    unify(first, second, "")
    assert [axis.size for axis in axes_of(first)] == common
    assert list(axes_of(first)) == list(axes_of(second))


def test_views_that_have_nothing_in_common_are_pinned():
    first, second = product((Axis(4), Axis(6))), product((Axis(6), Axis(4)))
    unify(first, second, "it cuts across")
    assert all(axis.pins == ["it cuts across"] for axis in (*axes_of(first), *axes_of(second)))


def test_a_shuffle_of_two_halves_ties_them():
    a, b = Axis(3), Axis(3)
    halves = concatenated((a, b))
    two, three = Axis(2), Axis(3)
    unify(halves, product((two, three)), "")
    assert list(axes_of(a))[-1] is list(axes_of(b))[-1] is resolve(three)


def test_a_pin_stays_when_an_axis_is_bound():
    a, b = pinned(4, "an output"), Axis(4)
    unify(a, b, "")
    assert next(axes_of(b)).pins == ["an output"]


def test_a_part_cannot_be_the_whole():
    a = Axis(1)
    one = Axis(1)
    whole = product((a, one))
    unify(a, whole, "a part of itself")
    assert all(axis.pins == ["a part of itself"] for axis in (a, one))


def test_dimensions_of_other_sizes_cannot_be_the_same():
    with pytest.raises(ValueError, match="dimensions of 3 and 4 cannot be the same"):
        unify(Axis(3), Axis(4), "")


@given(st.integers(1, 12), st.data())
def test_a_slice_has_the_indices_between(size: int, data: st.DataObject):
    axis = Axis(size)
    start = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(start + 1, size))
    part = sliced(axis, start, stop, "")
    assert part.size == stop - start
    dropped = data.draw(st.integers(0, size - 1))
    leaves = list(axes_of(axis))
    starts = [0, *itertools.accumulate(leaf.size for leaf in leaves)]
    place = next(k for k in range(len(leaves)) if starts[k] <= dropped < starts[k + 1])
    kept = kept_of({leaves[place]: dropped - starts[place]})
    expected = [i - start for i in indices(axis, kept).tolist() if start <= i < stop]
    assert indices(part, kept).tolist() == expected


def test_kept_indices_of_a_product_are_all_combinations():
    outer, inner = Axis(2), Axis(3)
    kept = kept_of({inner: 1})
    assert indices(product((outer, inner)), kept).tolist() == [0, 2, 3, 5]
    assert units_in(product((outer, inner)), inner).tolist() == [0, 1, 2, 0, 1, 2]


def test_pieces_of_equal_size_keep_equally_many():
    a, b, c = Axis(3), Axis(3), Axis(3)
    same_count([a, b])
    same_count([b, c])
    assert count_of(a) is count_of(c)


def test_axes_that_are_bound_one_to_the_other_thousands_of_times_are_resolved():
    """As in a model that adds a value in each of its layers; at first each axis knows the next one only."""
    axes = [Axis(3) for _ in range(5_000)]
    for axis, following in itertools.pairwise(axes):
        axis.bound = following
    assert resolve(axes[0]) is axes[-1]
    assert all(axis.bound is axes[-1] for axis in axes[:-1])  # directly, so that it is not searched for again
    end = product((Axis(1), Axis(3)))
    axes[-1].bound = end
    assert all(resolve(axis) is resolve(end) for axis in axes)
