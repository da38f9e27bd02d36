"""The features of the default network, found once for all networks of its sizes."""

from __future__ import annotations

import pytest
import torch

from torchlasso.estimators.network import SkipNetwork, feature_blocks
from torchlasso.graph import Inputs

GROUPS, WEIGHTS, KEEP = [[1, 2]], [1.0, 2.0, 2.0, 1.0, 0.5], [3]


@pytest.mark.parametrize("hidden", [(4,), (4, 3)])
def test_they_are_those_of_its_export(hidden: tuple[int, ...]) -> None:
    network, x = SkipNetwork(5, hidden, 2).double(), torch.zeros(2, 5).double()
    state = torch.random.get_rng_state()
    found = feature_blocks(network, x, GROUPS, WEIGHTS, KEEP)
    assert torch.equal(torch.random.get_rng_state(), state)
    wanted = Inputs(network, x, groups=GROUPS, weights=WEIGHTS, keep=KEEP)
    for name in ("names", "features", "blocks", "block_names", "kept"):
        assert getattr(found, name) == getattr(wanted, name)
    params = [dict(network.named_parameters())[name] for name in found.names]
    for ours, theirs in zip(found.views(params), wanted.views(params), strict=True):
        assert torch.equal(ours, theirs)
    assert found.balance(params) == wanted.balance(params)
    with torch.no_grad():
        network.skip.weight[:, 0] = network.layers[0].weight[:, 0] = 0.0
    assert found.live(network).tolist() == [False, True, True, True, True]


def test_they_are_found_once_for_each_size_and_its_groups() -> None:
    x = torch.zeros(2, 5)
    first = feature_blocks(SkipNetwork(5, (4,), 2), x, GROUPS, WEIGHTS, KEEP)
    assert feature_blocks(SkipNetwork(5, [4], 2), x, GROUPS, WEIGHTS, KEEP) is first
    for hidden, groups, keep in (((3,), GROUPS, KEEP), ((4,), [], KEEP), ((4,), GROUPS, [])):
        assert feature_blocks(SkipNetwork(5, hidden, 2), x, groups, WEIGHTS, keep) is not first
    frozen = SkipNetwork(5, (4,), 2)
    frozen.skip.requires_grad_(False)
    with pytest.raises(ValueError, match="multiplies feature 0 by something else"):  # past all weights that are trained
        feature_blocks(frozen, x, GROUPS, WEIGHTS, KEEP)
