"""The inputs that a model reads are the inputs that change its outputs, and no others."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from torchlasso.graph import find_units, inputs_read, read_in, strengths_in


class TwoWays(nn.Module):
    """Reads its inputs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.straight, self.hidden, self.head = nn.Linear(6, 2), nn.Linear(6, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.straight(x) + self.head(self.hidden(x).relu())


class Pair(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def zeroed(w: Tensor, *places: object) -> None:
    with torch.no_grad():
        for place in places:
            w[place] = 0.0


def by_changing(model: nn.Module, x: Tensor) -> Tensor:
    """The same by trying: which elements change the outputs where they are changed, on any of many rows."""
    found, flat = [], x.flatten(1)
    with torch.no_grad():
        outputs = model(x)
        for i in range(flat.shape[1]):
            other = flat.clone()
            other[:, i] += torch.randn(len(x)) * 3
            found.append(bool((model(other.reshape(x.shape)) != outputs).any()))
    return torch.tensor(found).reshape(x.shape[1:])


def sparse_convolutions() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    zeroed(model[0].weight, (slice(None), 1), (slice(None), 0, 0))  # no second channel, no upper row of the first
    zeroed(model[3].weight, (slice(None), [0, 1, 4, 5, 8, 9]))  # nothing of the upper half is read
    return model, torch.randn(64, 2, 6, 6)


def two_ways() -> tuple[nn.Module, Tensor]:
    model = TwoWays()
    zeroed(model.straight.weight, (slice(None), [0, 1, 2, 3]))
    zeroed(model.hidden.weight, (slice(None), [0, 1]))
    return model, torch.randn(64, 2, 3)


def dead_units() -> tuple[nn.Module, Tensor]:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    zeroed(model[0].weight, ([0, 1], 2))
    zeroed(model[2].weight, (slice(None), [2, 3]))  # only dead units read input 2
    return model, torch.randn(64, 5)


@pytest.mark.parametrize("make", [sparse_convolutions, two_ways, dead_units])
def test_the_inputs_read_are_those_that_change_the_outputs(make: object) -> None:
    torch.manual_seed(0)
    model, x = make()  # type: ignore[operator]
    read = inputs_read(model, x[:2])
    assert (read.dtype, read.shape) == (torch.bool, x.shape[1:])
    assert torch.equal(read, by_changing(model, x))
    assert 0 < int(read.sum()) < read.numel()


def test_other_weights_need_no_other_trace() -> None:
    torch.manual_seed(0)
    model, x = dead_units()
    units = find_units(model, x[:2])
    assert read_in(units).tolist() == [True, True, False, True, True]
    zeroed(model[0].weight, (slice(None), 0))
    assert read_in(units.now(model)).tolist() == [False, True, False, True, True]


def test_strengths_are_norms_over_the_used_weights() -> None:
    torch.manual_seed(0)
    model, x = dead_units()
    strengths = strengths_in(find_units(model, x[:2]))
    assert strengths is not None
    assert torch.allclose(strengths, model[0].weight[:2].double().norm(dim=0))
    assert strengths[2] == 0


def test_strengths_of_several_layers_are_added_up_in_the_shape_of_a_row() -> None:
    torch.manual_seed(0)
    model, x = two_ways()
    strengths = strengths_in(find_units(model, x[:2]))
    both = torch.cat([model.straight.weight, model.hidden.weight]).double()
    assert strengths is not None
    assert torch.allclose(strengths, both.norm(dim=0).reshape(2, 3))


def test_there_are_no_strengths_where_something_else_reads_the_inputs() -> None:
    model, x = sparse_convolutions()
    assert strengths_in(find_units(model, x[:2])) is None
    tanh = nn.Sequential(nn.Tanh(), nn.Linear(3, 2))
    assert strengths_in(find_units(tanh, torch.randn(2, 3))) is None


def test_a_model_with_two_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"for one tensor .*; the model takes 2 values$"):
        inputs_read(Pair(), (torch.ones(2, 3), torch.ones(2, 3)))
