"""Constants of removed units are added to biases and running means, or the units stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.support.compaction import compacted, images, ready, rows, why, zero

pytestmark = pytest.mark.usefixtures("seeded")


def test_a_constant_is_added_to_the_bias_of_the_next_layer():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.Sigmoid(), nn.Linear(7, 2)))
    zero(net[0].weight, 1, 4)
    small, found = compacted(net, rows(4))
    assert found.removed == 2
    added = net[2].weight[:, [1, 4]] @ torch.sigmoid(net[0].bias[[1, 4]])
    assert torch.allclose(small[2].bias, net[2].bias + added, rtol=0, atol=1e-12)


def test_a_constant_passes_through_everything_before_the_next_layer():
    layers = [nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.GELU(), nn.MaxPool2d(2), nn.Flatten()]
    net = ready(nn.Sequential(*layers, nn.Linear(63, 2)))
    zero(net[0].weight, 0, 2)
    net[0].bias.data[[0, 2]] = net[1].running_mean[[0, 2]]  # so that it is the same constant in training
    small, found = compacted(net, images())
    assert found.removed == 2
    assert small[0].weight.shape == (5, 3, 3, 3)
    assert small[5].in_features == 45


def test_a_constant_is_folded_into_a_convolution_without_padding():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3)))
    zero(net[0].weight, 1, 3)
    net[0].bias.data[[1, 3]] = torch.tensor([0.7, -0.7], dtype=torch.float64)
    small, found = compacted(net, images())
    assert found.removed == 2
    added = 0.7 * net[2].weight[:, 1].sum((1, 2))
    assert torch.allclose(small[2].bias, net[2].bias + added, rtol=0, atol=1e-12)


def test_a_constant_stays_beside_a_border_of_zeros():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3, padding=1)))
    zero(net[0].weight, 1, 3)
    net[0].bias.data[[1, 3]] = torch.tensor([0.7, -0.7], dtype=torch.float64)
    _, found = compacted(net, images())
    assert found.removed == 1  # units that are zero behind the activation are removed in spite of the border
    assert why(found, 7) == "its constant does not have the same effect everywhere in 2"


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_constant_is_folded_if_the_padding_repeats_it(mode: str):
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 2, 3, padding=1, padding_mode=mode)))
    zero(net[0].weight, 1)
    net[0].bias.data[1] = 0.7
    small, found = compacted(net, images())
    assert found.removed == 1
    assert (small[2].in_channels, small[2].out_channels) == (6, 2)


def test_a_constant_is_folded_into_the_running_mean_behind_a_convolution_without_bias():
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ReLU(), nn.Conv2d(7, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU())
    net = ready(nn.Sequential(*net, nn.Flatten(), nn.Linear(20, 2)))
    zero(net[0].weight, 1)
    net[0].bias.data[1] = 0.7
    small, found = compacted(net, images())
    assert found.removed == 1
    added = 0.7 * net[2].weight[:, 1].sum((1, 2))
    assert torch.allclose(small[3].running_mean, net[3].running_mean - added, rtol=0, atol=1e-12)
    assert small[2].bias is None


def test_a_constant_stays_where_there_is_no_bias():
    net = ready(nn.Sequential(nn.Linear(4, 7), nn.Sigmoid(), nn.Linear(7, 2, bias=False)))
    zero(net[0].weight, 1)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert why(found, 7) == "its constant is not zero, and 2 has no bias to add it to"


def test_a_constant_stays_where_a_bias_is_used_twice_for_different_inputs():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other, self.shared = nn.Linear(4, 7), nn.Linear(4, 7), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.shared(torch.sigmoid(self.one(x))) * self.shared(torch.sigmoid(self.other(x)))

    net = ready(Twice())
    zero(net.one.weight, 1)
    zero(net.other.weight, 1)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert "shared.bias, which is used more than once" in why(found, 7)
    net.other.bias.data[1] = net.one.bias.data[1]  # both uses need the same change
    _, found = compacted(net, rows(4))
    assert found.removed == 1


def test_a_constant_that_is_summed_stays():
    class Summed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 7)

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(self.stem(x)).sum(dim=1)

    net = ready(Summed())
    zero(net.stem.weight, 2)
    _, found = compacted(net, rows(4))
    assert found.removed == 0
    assert "adds up its constant" in why(found, 7)


def test_a_constant_in_training_alone_is_not_a_constant():
    net = ready(nn.Sequential(nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7), nn.Flatten(), nn.Linear(7 * 16, 2)))
    zero(net[0].weight, 1, 2)
    net[1].running_mean[2] = 0
    _, found = compacted(net, images())
    assert found.removed == 1
