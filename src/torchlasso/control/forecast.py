"""The support at the end of training, predicted from its recent past."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import local

FAR = 255  # strides: what is further away does not count as on its way
TENSORS = ("ages", "then", "strides_left")


class Forecast:
    """A prediction of the weights that stay: those that were never zero in a recent window, nor are about to be.

    While the learning rate is high, the noise of mini-batches keeps reviving weights whose place in the end is at zero:
    at any moment far more are alive than will be. But these were zero at least once lately, which the others were not.
    And a weight that λ has just become too large for takes its time to get to zero: it is on its way, at about the
    speed that it had lately. Kept are, for each weight, one byte that says how many samples ago it was zero, its
    magnitude some samples ago, and one byte for how soon it would be zero at the speed that it had since.

    Args:
        params: the weights.
        samples: the length of the longest window, at most 255.
        stride: over how many samples a speed is taken.
    """

    def __init__(self, params: Sequence[Tensor], samples: int, stride: int) -> None:
        self.samples, self.stride, self.taken = samples, stride, 0
        self.params: list[Tensor] = []
        self.ages: list[Tensor] = []
        self.then: list[Tensor] = []
        self.strides_left: list[Tensor] = []
        self.follow(params)

    def follow(self, params: Sequence[Tensor]) -> None:
        """Go on with these weights: of those that are new nothing is noted yet, others are forgotten."""
        known = {p: i for i, p in enumerate(self.params)}
        shards = [local(p.detach()) for p in params]
        fresh: dict[str, Callable[[Tensor], Tensor]] = {
            "ages": lambda w: torch.full_like(w, self.samples, dtype=torch.uint8),
            "then": lambda w: w.abs(),
            "strides_left": lambda w: torch.full_like(w, FAR, dtype=torch.uint8),
        }
        for name in TENSORS:
            kept, make = getattr(self, name), fresh[name]
            noted = [kept[known[p]] if p in known else make(w) for p, w in zip(params, shards, strict=True)]
            setattr(self, name, noted)
        self.params = list(params)

    @torch.no_grad()
    def sample(self) -> None:
        """Note which weights are zero now, and how fast the others go there."""
        shards = [local(p.detach()) for p in self.params]
        for age, w in zip(self.ages, shards, strict=True):
            age.add_(1).clamp_(max=self.samples).mul_(w != 0)
        self.taken += 1
        if self.taken % self.stride == 0:
            for then, left, w in zip(self.then, self.strides_left, shards, strict=True):
                now = w.abs()
                speed = (then - now).clamp_min_(0)
                left.copy_(torch.where(speed * FAR > now, (now / speed).ceil_(), FAR))
                then.copy_(now)

    def alive(self, window: int, ahead: float) -> list[Tensor]:
        """Mark the weights that were zero in none of the last ``window`` samples, nor will be for ``ahead`` samples.

        Args:
            window: at least 1.
            ahead: how far to look, in samples.

        Returns:
            A mask for each parameter, of this process's shard.
        """
        strides = max(0, min(FAR - 1, int(ahead / self.stride)))
        pairs = zip(self.ages, self.strides_left, strict=True)
        return [(age >= min(window, self.samples)) & (left > strides) for age, left in pairs]

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:
        """Let what was noted be that of the weights that are left."""
        for name in TENSORS:
            setattr(self, name, [smaller(p, t) for p, t in zip(self.params, getattr(self, name), strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """Return the samples so far."""
        return {"taken": self.taken, **{name: [t.clone() for t in getattr(self, name)] for name in TENSORS}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.taken = int(state["taken"])
        for name in TENSORS:
            for tensor, kept in zip(getattr(self, name), state[name], strict=True):
                tensor.copy_(kept)
