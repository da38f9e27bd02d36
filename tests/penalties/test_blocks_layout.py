"""Blocks against the outputs of layers: a block of zeros silences exactly the unit or input that it names."""

import pytest
import torch
from torch import nn

from torchlasso.penalties.blocks import Chunks, Filters, Heads, InputChannels, Partition

LAYERS = [
    nn.Linear(6, 4, bias=False),
    nn.Conv1d(6, 4, 3, bias=False),
    nn.Conv2d(6, 4, 3, groups=2, bias=False),
    nn.Conv2d(6, 6, 3, groups=6, bias=False),
    nn.Conv3d(2, 4, 1, bias=False),
    nn.ConvTranspose1d(6, 4, 3, bias=False),
    nn.ConvTranspose2d(6, 4, 3, groups=2, bias=False),
]


def example(layer):
    if isinstance(layer, nn.Linear):
        return torch.randn(2, layer.in_features)
    return torch.randn(2, layer.in_channels, *[5] * (layer.weight.dim() - 2))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_zero_filter_is_a_silent_output_channel(layer):
    torch.manual_seed(0)
    over = Filters().fit(layer, "weight")
    rows, restore = over.rows(layer.weight.detach())
    x = example(layer)
    assert len(rows) == layer(x).shape[1]
    for channel in range(len(rows)):
        changed = rows.clone()
        changed[channel] = 0
        y = torch.func.functional_call(layer, {"weight": restore(changed)}, (x,))
        silent = (y == 0).reshape(2, len(rows), -1).all(dim=2).all(dim=0)
        assert silent.nonzero().flatten().tolist() == [channel]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_zero_input_channel_is_not_read(layer):
    torch.manual_seed(0)
    over = InputChannels().fit(layer, "weight")
    rows, restore = over.rows(layer.weight.detach())
    x = example(layer)
    assert len(rows) == x.shape[1]
    for channel in range(len(rows)):
        changed = rows.clone()
        changed[channel] = 0
        weight = {"weight": restore(changed)}
        other = x.clone()
        other[:, channel] += 1
        a, b = (torch.func.functional_call(layer, weight, (v,)) for v in (x, other))
        torch.testing.assert_close(a, b)
        other[:, channel - 1] += 1  # any other channel is read
        assert not torch.allclose(a, torch.func.functional_call(layer, weight, (other,)))


def test_heads_of_a_joint_projection_hold_query_key_and_value():
    attention = nn.MultiheadAttention(8, num_heads=2, bias=False)
    over = Heads(n=2).fit(attention, "in_proj_weight")
    index = torch.arange(24.0)[:, None].expand(24, 8)
    rows, _ = over.rows(index)
    assert rows.shape == (2, 3 * 4 * 8)
    assert rows[0].unique().tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]


def test_the_last_chunk_may_be_shorter_and_weighs_less():
    over = Chunks(n=4)
    w = torch.arange(1.0, 11.0)
    rows, restore = over.rows(w)
    assert rows.shape == (3, 4)
    assert torch.equal(restore(rows), w)
    assert over.sizes(w).tolist() == [4, 4, 2]
    torch.testing.assert_close(over.weights(w), torch.tensor([4.0, 4.0, 2.0]).sqrt())


@pytest.mark.parametrize("over", [Filters(transposed=True, groups=2), InputChannels(groups=3), Heads(n=3, dim=1)])
def test_rows_and_back(over: Partition):
    w = torch.randn(6, 12, 3, 2)
    rows, restore = over.rows(w)
    assert torch.equal(restore(rows), w)
    assert rows.numel() == w.numel()
    assert over.weights(w) == rows.shape[1] ** 0.5
