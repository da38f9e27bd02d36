"""The end of a training, in which the zeros stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torchlasso._core.arguments import is_number, shown
from torchlasso.optim import Proximal
from torchlasso.optim.controller import LambdaController, check_steps


def hold_start(steps: int, share: float) -> int:
    """Return the number of steps before the hold, at least 1, in a training with so many steps.

    >>> hold_start(100, share=0.25)
    75
    """
    return max(1, steps - max(1, round(share * steps)))


class Hold(LambdaController):
    """The last part of a training: what is zero stays zero, λ is 0, and the other weights move freely.

    L1 shrinks the weights that it keeps, and it decides which ones to keep as long as it acts. So a training has two
    parts: a search for the support, at a high learning rate, and a fit of what is left, while the rate falls to zero
    (the relaxed lasso, Meinshausen 2007). Let other controllers reach their target at :attr:`start`, the number of
    steps before the hold.

    Args:
        optimizer: whose zeros are held.
        steps: the number of steps of the optimizer in the whole training.
        share: the share of them that is the hold, above 0 and below 1.

    Raises:
        ValueError: ``share`` is not between 0 and 1; a penalty over singular values, whose zeros are not weights.

    Examples:
        >>> import torch, torchlasso as tl
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 0.05]))
        >>> optimizer = tl.ProxSGD([w], lr=0.1, penalty=tl.L1(), lam=1.0)
        >>> control = Hold(optimizer, steps=4, share=0.5)
        >>> found = []
        >>> for _ in range(4):
        ...     w.grad = torch.tensor([0.0, -1.0])
        ...     optimizer.step()
        ...     control.step()
        ...     found.append((w[0].item(), control.lam[0]))
        >>> [(round(weight, 4), lam) for weight, lam in found]  # two steps of L1, and two without
        [(0.9, 1.0), (0.8, 0.0), (0.8, 0.0), (0.8, 0.0)]
    """

    def __init__(self, optimizer: Proximal, steps: int, share: float = 0.25) -> None:
        super().__init__(optimizer)
        check_steps(steps, "Hold")
        if not is_number(share) or not 0 < share < 1:
            raise ValueError(f"Hold: share is a share of the training, above 0 and below 1; got {shown(share)}")
        self.optimizer.check_hold()
        self.steps, self.start = steps, hold_start(steps, share)
        self._before: list[float] | None = None

    @property
    def before(self) -> list[float]:
        """λ of each penalised group as it was before the hold."""
        return self.lam if self._before is None else list(self._before)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "before": self._before}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._before = state["before"]

    def _control(self) -> None:
        if self.done < self.start:
            return
        if self._before is None:
            self._before = self.lam
        self.optimizer.hold()
        for group, _ in self._groups():
            self._write(group, 0.0)
