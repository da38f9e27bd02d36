"""The weights of the reweighted lasso: a function of the magnitudes of blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchlasso.distributed.sharding import whole
from torchlasso.penalties.blocks import Blocks


@dataclass(frozen=True)
class Reweighting:
    """The factor (θ/(r+θ))^q on λ of a block with the magnitude r (Candès, Wakin and Boyd 2008).

    Args:
        theta: θ > 0, the magnitude at which λ is multiplied by 2^−q.
        q: the power, above 0.

    Examples:
        >>> import torch
        >>> from torchlasso.penalties.blocks import Elements
        >>> Reweighting(theta=0.05).of(Elements(), torch.tensor([0.0, -0.05, 0.45]))
        tensor([1.0000, 0.5000, 0.1000])
    """

    theta: float
    q: float = 1.0

    def of(self, over: Blocks, w: Tensor) -> Tensor:
        """Return the factors for the blocks of a view, of the shape of their magnitudes."""
        # single weights stay on their shard; a block may be cut by the sharding, so it is gathered
        r, _ = over.decompose(w.detach() if over.single else whole(w.detach()))
        return self.at(r)

    def at(self, r: Tensor) -> Tensor:
        """Return the factors for magnitudes."""
        weights = self.theta / (r + self.theta)
        return weights if self.q == 1 else weights**self.q
