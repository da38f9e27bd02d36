"""What a support will be at the end of training, from what it was lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.sharding import local


class Forecast:
    """Which weights will not be zero: those that were never zero in a window up to now.

    While the learning rate is high, the noise of mini-batches keeps reviving weights whose place in the end is at zero:
    at any moment far more are alive than will be. But these were zero at least once lately, which the others were not.
    Kept is one byte for each weight: how many samples ago it was zero.

    Args:
        params: the weights.
        samples: the length of the longest window, at most 255.
    """

    def __init__(self, params: Sequence[Tensor], samples: int) -> None:
        self.params, self.samples = list(params), samples
        self.ages = [torch.full_like(local(p.detach()), samples, dtype=torch.uint8) for p in self.params]

    @torch.no_grad()
    def sample(self) -> None:
        """Note which weights are zero now."""
        for age, p in zip(self.ages, self.params, strict=True):
            age.add_(1).clamp_(max=self.samples).mul_(local(p) != 0)

    def alive(self, window: int) -> list[Tensor]:
        """Which weights were not zero in any of the last ``window`` samples, at least 1: of this process's shards."""
        return [age >= min(window, self.samples) for age in self.ages]

    def state_dict(self) -> dict[str, Any]:
        """The ages."""
        return {"ages": [age.clone() for age in self.ages]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for age, kept in zip(self.ages, state["ages"], strict=True):
            age.copy_(kept)
