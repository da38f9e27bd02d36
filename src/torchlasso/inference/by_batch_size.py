"""A model that runs in another way for each batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


class ByBatchSize(nn.Module):
    """Modules with the same outputs, of which that for the nearest batch size runs, by ratio.

    Args:
        models: the modules, by batch size. Those of several sizes may be the same.
    """

    def __init__(self, models: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleDict({str(size): model for size, model in sorted(models.items())})

    def nearest(self, size: int) -> int:
        """Return the batch size, among those of the models, whose ratio to another one is nearest to 1."""
        return min(map(int, self.models), key=lambda known: abs(math.log(known / max(size, 1))))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; the batch size is that of the first tensor."""
        sizes = (len(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf.dim())
        return self.models[str(self.nearest(next(sizes, 1)))](*args, **kwargs)
