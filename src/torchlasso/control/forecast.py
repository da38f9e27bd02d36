"""The support at the end of training, predicted from its recent past."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from torchlasso.distributed.sharding import local, part_like, shared_like, whole

FAR = 255  # strides: a weight further from zero does not count as moving there
TENSORS = ("ages", "then", "strides_left")


class Forecast:
    """A prediction of the weights that stay: weights that were never zero in a recent window and will not be soon.

    While the learning rate is high, the noise of mini-batches keeps reviving weights that will be zero in the end: at
    any moment, far more weights are alive than will be. But these weights were zero at least once lately, and weights
    that stay were not. Further, a weight does not become zero at once when λ becomes too large for it: it moves
    towards zero at about its recent speed. So the forecast keeps for each weight one byte with the number of samples
    since it was last zero, its magnitude some samples ago, and one byte with the time until it would be zero at its
    speed since then.

    Args:
        params: the weights.
        samples: the length of the longest window, at most 255.
        stride: the number of samples over which a speed is measured.
    """

    def __init__(self, params: Sequence[Tensor], samples: int, stride: int) -> None:
        self.samples, self.stride, self.taken = samples, stride, 0
        self.params: list[Tensor] = []
        self.ages: list[Tensor] = []
        self.then: list[Tensor] = []
        self.strides_left: list[Tensor] = []
        self.follow(params)

    def follow(self, params: Sequence[Tensor]) -> None:
        """Go on with these weights: new ones start without a past, and others are forgotten."""
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
        """Record the weights that are zero now, and the speed of the others."""
        shards = [local(p.detach()) for p in self.params]
        for age, w in zip(self.ages, shards, strict=True):
            check_size(age, w)
            age.add_(1).clamp_(max=self.samples).mul_(w != 0)
        self.taken += 1
        if self.taken % self.stride == 0:
            for then, left, w in zip(self.then, self.strides_left, shards, strict=True):
                now = w.abs()
                speed = (then - now).clamp_min_(0)
                left.copy_(torch.where(speed * FAR > now, (now / speed).ceil_(), FAR))
                then.copy_(now)

    def weights(self, window: int, ahead: float) -> list[Tensor]:
        """Return the weights that were not zero in the last ``window`` samples and will not be for ``ahead`` samples.

        Args:
            window: at least 1.
            ahead: the horizon, in samples.

        Returns:
            The shard of this process of each parameter, with zeros in the place of the others.
        """
        strides = max(0, min(FAR - 1, int(ahead / self.stride)))
        triples = zip(self.params, self.ages, self.strides_left, strict=True)
        return [
            torch.where((age >= min(window, self.samples)) & (left > strides), local(p.detach()), 0.0)
            for p, age, left in triples
        ]

    def resize(self, smaller: Callable[[Tensor, Any], Any]) -> None:
        """Keep the records of the weights that are left."""
        for name in TENSORS:
            setattr(self, name, [smaller(p, t) for p, t in zip(self.params, getattr(self, name), strict=True)])

    def state_dict(self) -> dict[str, Any]:
        """Return the samples so far, whole where the weights are sharded: every process has to call this."""
        found: dict[str, Any] = {"taken": self.taken}
        for name in TENSORS:
            pairs = zip(self.params, getattr(self, name), strict=True)
            found[name] = [whole(shared_like(p.detach(), t.clone())) for p, t in pairs]
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.taken = int(state["taken"])
        for name in TENSORS:
            for p, tensor, kept in zip(self.params, getattr(self, name), state[name], strict=True):
                found = part_like(p.detach(), kept)
                check_size(found, tensor)
                tensor.copy_(found)


def check_size(kept: Tensor, w: Tensor) -> None:
    """Raise ``RuntimeError`` if a record of a weight has another size than the weight."""
    if kept.shape != w.shape:
        raise RuntimeError(
            f"a controller of λ follows a weight of the shape {tuple(kept.shape)}, which has the shape "
            f"{tuple(w.shape)} now: where a model becomes smaller, give its controllers as well, as in "
            "shrink_(model, optimizer, x, controllers=[control])"
        )


def bounded_log_odds(share: float) -> float:
    """Return the log odds of a share, away from 0 and 1, where they are infinite."""
    share = min(max(share, 1e-9), 1 - 1e-3)
    return math.log(share / (1 - share))
