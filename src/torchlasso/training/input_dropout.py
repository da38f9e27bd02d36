"""Input dropout: inputs go to the background at random, so that no output rests on a few of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchlasso._core.arguments import is_number
from torchlasso.training.regularisation import background_of, need_floats
from torchlasso.training.rows import InputRows


def check_probability(what: str, p: float) -> None:
    """Raise ``ValueError`` unless a probability of dropout is a number that is at least 0 and below 1."""
    if not is_number(p) or not 0 <= p < 1:
        raise ValueError(f"p of the {what} must be a probability, at least 0 and below 1; got {p!r}")


@dataclass(frozen=True, eq=False)
class InputDropout:
    """Dropout of inputs: each goes to the background b with probability p, and the others are scaled.

    x̃ = b + m·(x − b)/(1 − p), with m = 0 with probability p and 1 otherwise, so that the mean of x̃ is x. A pixel is
    dropped in all channels at once. For use in training only. Srivastava et al. 2014.

    Args:
        p: the probability, at least 0 and below 1; around 0.1 to 0.2 for images.
        background: b, a tensor that broadcasts to the inputs. :meth:`fit` finds it.

    Raises:
        ValueError: p is not such a number.

    Examples:
        >>> _ = torch.manual_seed(0)
        >>> InputDropout(0.5)(torch.ones(2, 4))
        tensor([[0., 2., 0., 0.],
                [0., 2., 0., 2.]])
    """

    p: float
    background: Tensor = field(default_factory=lambda: torch.zeros(()))

    def __post_init__(self) -> None:
        check_probability("input dropout", self.p)

    @classmethod
    def fit(cls, x: InputRows, p: float) -> InputDropout:
        """Make the dropout for inputs like the training rows ``x``, (n, channels or features, …).

        The background of a channel or a feature is its most common value, if at least a quarter of its values equal
        it, such as the black around a digit or the zeros of counts. Otherwise it is the mean: the value that says
        nothing, and the one from which the dropped values are least far.

        Raises:
            TypeError: the inputs are whole numbers, such as codes of categories, which have no scale.
        """
        need_floats("input dropout", x[:1])
        return cls(p, background_of(x))

    def __call__(self, x: Tensor) -> Tensor:
        """Drop inputs of a batch, (n, features) or (n, channels, …).

        Raises:
            TypeError: the inputs are whole numbers.
        """
        need_floats("input dropout", x)
        dropped = x.shape if x.dim() == 2 else (len(x), 1, *x.shape[2:])  # a pixel in all channels at once
        kept = torch.rand(dropped, device=x.device) >= self.p
        return torch.where(kept, self.background + (x - self.background) / (1 - self.p), self.background)
