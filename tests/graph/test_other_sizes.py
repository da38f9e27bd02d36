"""Inputs of other sizes that the model accepts, with values as in the example."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchlasso._core.running import as_arguments
from torchlasso.graph.other_sizes import MeaninglessError, at_other_sizes


def found(model: Any, inputs: Any) -> tuple[Any, Any] | None:
    def run(given: Any) -> Any:
        args, kwargs = as_arguments(given)
        return model(*args, **kwargs)

    return at_other_sizes(inputs, run)


def shape_of(model: Any, x: Tensor) -> tuple[int, ...] | None:
    given = found(model, x)
    return None if given is None else tuple(given[0].shape)


class Pooled(nn.Module):
    def __init__(self, multiple: int = 1, square: bool = False, longest: int = 10**6) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.multiple, self.square, self.longest = multiple, square, longest

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % self.multiple or width % self.multiple:
            raise RuntimeError(f"sides have to be multiples of {self.multiple}")
        assert not self.square or height == width
        assert max(height, width) <= self.longest
        return self.out(self.conv(x).mean((2, 3)))


def test_an_image_changes_in_batch_height_and_width_and_its_sides_come_to_differ():
    assert shape_of(Pooled(), torch.zeros(2, 3, 8, 8)) == (3, 3, 9, 10)
    assert shape_of(Pooled(), torch.zeros(2, 3, 8, 5)) == (3, 3, 9, 6)


def test_a_single_image_of_a_single_pixel():
    assert shape_of(Pooled(), torch.zeros(1, 3, 1, 1)) == (2, 3, 3, 4)  # the batch has the size of the sides


@pytest.mark.parametrize(("size", "multiple", "sides"), [(64, 32, (96, 128)), (28, 14, (56, 28)), (12, 4, (16, 32))])
def test_sides_are_multiples_where_the_model_needs_them(size: int, multiple: int, sides: tuple[int, int]):
    assert shape_of(Pooled(multiple), torch.zeros(1, 3, size, size)) == (2, 3, *sides)


def test_sides_stay_equal_where_the_model_needs_it():
    assert shape_of(Pooled(square=True), torch.zeros(1, 3, 8, 8)) == (2, 3, 9, 9)


def test_sizes_shrink_where_larger_ones_are_refused():
    assert shape_of(Pooled(longest=8), torch.zeros(1, 3, 8, 8)) == (2, 3, 7, 8)
    assert shape_of(Pooled(multiple=4, longest=8), torch.zeros(1, 3, 8, 8)) == (2, 3, 4, 8)


def test_channels_that_are_as_many_as_the_batch_stay():
    assert shape_of(Pooled(), torch.zeros(3, 3, 8, 8)) == (4, 3, 9, 10)


def test_only_the_batch_of_a_table_changes():
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    assert shape_of(net, torch.zeros(1, 6)) == (2, 6)
    assert shape_of(net, torch.zeros(6, 6)) == (7, 6)


def test_nothing_is_found_where_every_size_is_fixed():
    assert found(lambda x: x.view(2, 12) @ torch.zeros(12, 3), torch.zeros(2, 3, 4)) is None


class Reader(nn.Module):
    """A transformer with a mask and positions up to a largest length."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.embed, self.positions = nn.Embedding(7, 8), nn.Embedding(longest, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, ids: Tensor, mask: Tensor, padding: Tensor | None = None) -> Tensor:
        x = self.embed(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.layer(x, src_mask=mask, src_key_padding_mask=padding)


@pytest.mark.parametrize(("longest", "length"), [(20, 6), (5, 4)])
def test_a_sequence_changes_with_its_masks_and_indices_keep_their_range(longest: int, length: int):
    causal = torch.full((5, 5), float("-inf")).triu(1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    inputs = {"ids": torch.randint(7, (2, 5)), "mask": causal, "padding": padding.float().masked_fill(padding, -1e9)}
    given, outputs = found(Reader(longest).eval(), inputs)
    assert given.keys() == inputs.keys()
    assert [tuple(x.shape) for x in given.values()] == [(3, length), (length, length), (3, length)]
    assert set(given["ids"].flatten().tolist()) <= set(inputs["ids"].flatten().tolist())
    assert set(given["mask"].flatten().tolist()) == {0.0, float("-inf")}
    assert outputs.shape == (3, length, 8)


def test_other_values_than_tensors_stay_and_the_example_is_not_changed():
    x = torch.arange(6.0).reshape(2, 3)
    before = x.clone()
    given, _ = found(lambda x, power, *, of: (x**power).sum(1) * of, (x, 2)) or (None, None)
    assert given is None  # `of` is missing
    given, _ = found(lambda x, power: x**power, (x, 2))
    assert given[1] == 2
    assert given[0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 3], [0, 1, 2, 0]]
    assert torch.equal(x, before)


def test_random_numbers_are_as_if_nothing_had_run():
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    found(lambda x: F.dropout(x, training=True), torch.zeros(2, 3))
    assert torch.equal(torch.rand(3), wanted)


def test_a_few_runs_are_enough():
    runs = []

    def run(x: Tensor) -> Tensor:
        runs.append(x.shape)
        return model(x)

    model = Pooled()
    at_other_sizes(torch.zeros(2, 3, 8, 8), run)
    assert len([shape for shape in runs if shape[1] == 3]) == 1  # others fail at the first layer


def test_values_are_not_what_is_refused_once_all_of_them_were_accepted():
    """At a size that is refused for itself, the example is not tried as well; before that, it is."""
    ran: list[str] = []

    def model(x: torch.Tensor, name: str) -> torch.Tensor:
        ran.append(name)
        if x.shape[1:] != (3, 8, 8):
            raise ValueError
        return x

    first, example = torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    found = at_other_sizes(example, lambda x: model(x, "example"), first=(first, lambda x: model(x, "first")))
    assert found is not None
    assert found[0].shape == (3, 3, 8, 8)
    assert torch.equal(found[0][:2], first)
    accepted = ran.index("first", ran.index("example"))
    assert "example" in ran[:accepted]
    assert ran[-6:] == ["first"] * 6


def test_outputs_that_say_nothing_leave_the_size_to_the_example():
    def first(x: torch.Tensor) -> torch.Tensor:
        if len(x) > 3:
            raise MeaninglessError
        return x

    inputs = torch.rand(3, 1), first
    found = at_other_sizes(torch.zeros(3, 1), lambda x: x, first=inputs)
    assert found is not None
    assert not found[0].any()
