"""Word dropout: words of a text are left out at random, so that no output rests on a few of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchlasso.training.input_dropout import check_probability


@dataclass(frozen=True)
class WordDropout:
    """Dropout of words: each becomes 0, which stands for a word that is not read, with probability p.

    For use in training only. Iyyer et al. 2015.

    Args:
        p: the probability, at least 0 and below 1.

    Raises:
        ValueError: p is not such a number.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> WordDropout(0.5)(torch.tensor([[5, 6, 7, 8]]))
        tensor([[0, 6, 0, 0]])
    """

    p: float

    def __post_init__(self) -> None:
        check_probability("word dropout", self.p)

    def __call__(self, x: Tensor) -> Tensor:
        """Drop words of a batch of texts, (n, length)."""
        return torch.where(torch.rand(x.shape, device=x.device) >= self.p, x, 0)
