"""The weights of units by the operations that they cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torchlasso as tl

pytestmark = pytest.mark.slow

X = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def test_units_are_weighted_by_their_operations() -> None:
    """By hand: a layer's operations are 2·weights·positions, and count with its outputs and with its inputs."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 5))
    by_size, by_flops = (tl.Units(net, X[:2], by=by) for by in ("size", "flops"))
    rows = 2
    first, second, last = 2 * 36 * 36 * rows, 2 * 216 * 16 * rows, 2 * 480 * rows
    cost = torch.tensor([(first + second) / 4, (second + last) / 6])
    roots = torch.tensor([10.0, 37.0]).sqrt()  # a filter and its bias
    counts = torch.tensor([4.0, 6.0])
    expected = cost / roots * (counts @ roots) / (counts @ cost)
    torch.testing.assert_close(torch.tensor(by_flops.scales), expected)
    assert by_size.scales == ()
    plain = tl.Units(net, X[:2], by="flops", weighted=False)
    torch.testing.assert_close(torch.tensor(plain.scales), cost * counts.sum() / (counts @ cost))
    values = [tl.penalty(tl.param_groups(net, tl.L1(over=over), lam=1.0)) for over in (by_flops, by_size)]
    norms = [
        torch.cat([net[i].weight.flatten(1), net[i].bias[:, None]], dim=1).norm(dim=1).sum() for i in (0, 2)
    ]  # fmt: skip
    torch.testing.assert_close(values[0], sum(s * r * n for s, r, n in zip(expected, roots, norms, strict=True)))
    torch.testing.assert_close(values[1], sum(r * n for r, n in zip(roots, norms, strict=True)))
    groups = tl.param_groups(net, tl.L1(over=by_flops), lam=1.0)
    for p in net.parameters():
        p.grad = p.detach().clone()
    largest = [
        (torch.cat([net[i].weight.flatten(1), net[i].bias[:, None]], dim=1).norm(dim=1) / root / scale).max().item()
        for i, root, scale in zip((0, 2), roots, expected, strict=True)
    ]
    assert tl.lambda_max(groups) == pytest.approx(max(largest))
    with pytest.raises(ValueError, match="by must be 'size' or 'flops'; got 'latency'"):
        tl.Units(net, X[:2], by="latency")
