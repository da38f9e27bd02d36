"""Judge by the course of a training whether it ended too early."""

from __future__ import annotations

import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from torchlasso.estimators.models import Fitted
from torchlasso.optim import ProxAdam
from torchlasso.selection import penalised

# Signs of a training that ended too early. More epochs always fit the training rows better, and may learn their
# noise: so the signs are for trainings far from their end. tests/estimators/test_convergence.py has both kinds.
FALLS = 0.175  # a fall of the objective between two parts of the training, relative to the loss of a constant
EARLY, LATE = (0.2, 0.35), (0.9, 1.0)  # the two parts
WAY, LEFT = 0.5, 0.1  # the way of weights relative to the longest one, and the share of the objective that is left
REACH = 0.35  # the longest way itself: weights of scaled columns are to become about 1; 70 steps of 0.01 on a cosine


def regularisers(optimizer: ProxAdam) -> float:
    """Return the penalties and the weight decay of an objective."""
    decays = [
        group["weight_decay"] / 2 * sum(float(p.square().sum()) for p in group["params"])
        for group in optimizer.param_groups
    ]
    penalties = [float(rule.value(w, lam)) for w, rule, lam in penalised(optimizer.penalised_groups())]
    return float(sum(penalties) + sum(decays))


class Course:
    """The course of a training by Adam's proximal form.

    An update of Adam moves a weight by about the learning rate at most. So the sum of the rates is the longest way of a
    weight, and one that went a large part of it was still on its way at the end: near its optimum it goes both ways.

    Args:
        network, optimizer: as training begins.
        constant: the loss of a model that gives the same for all rows.
        longest: the sum of the learning rates of all steps.
        searches: whether λ changes, so that only losses can be compared, and their fall says nothing.
    """

    def __init__(
        self, network: nn.Module, optimizer: ProxAdam, constant: float, longest: float, searches: bool
    ) -> None:
        self.network, self.optimizer, self.searches = network, optimizer, searches
        self.constant, self.longest = constant, longest
        self.objectives: list[float] = []  # the mean of each epoch
        self.starts = [p.detach().clone() for p in network.parameters()]

    @torch.no_grad()
    def after_epoch(self, loss: float) -> None:
        """Note an epoch with this mean loss."""
        self.objectives.append(loss if self.searches else loss + regularisers(self.optimizer))

    @property
    def ended_early(self) -> str:
        """The sign of a training that ended too early; an empty string if there is none."""
        end = self._mean(LATE)
        fell = self._mean(EARLY) - end
        if fell >= FALLS * self.constant > 0 and not self.searches:
            return f"its objective still fell, by {fell / self.constant:.0%} of the loss of a constant"
        way = self._way()
        if way >= WAY and way * end >= WAY * LEFT * self.constant:  # the longer the way, the less may be left
            return f"its weights were still on their way, at {way:.0%} of the longest one for this learning rate"
        if self.longest <= REACH and end >= LEFT * self.constant:
            return f"its learning rates add up to {self.longest:.2g}, and no weight goes further"
        return ""

    def _mean(self, part: tuple[float, float]) -> float:
        """Return the mean objective in a part of the training."""
        low, high = (share * len(self.objectives) for share in part)
        chosen = self.objectives[int(low) : max(int(low) + 1, round(high))]
        return sum(chosen) / len(chosen)

    @torch.no_grad()
    def _way(self) -> float:
        """Return the mean way of the weights that are not zero, relative to the longest one."""
        pairs = [(p[p != 0], start[p != 0]) for p, start in zip(self.network.parameters(), self.starts, strict=True)]
        total = sum(float((p - start).abs().sum()) for p, start in pairs)
        return total / (max(1, sum(p.numel() for p, _ in pairs)) * self.longest)


def warn_if_early(found: Fitted, epochs: int, stacklevel: int) -> None:
    """Warn if the training of a model of so many epochs ended too early."""
    if found.ended_early:
        warnings.warn(
            f"the training of the network ended too early, {found.ended_early}. Give it more epochs than {epochs}.",
            ConvergenceWarning,
            stacklevel=stacklevel + 1,
        )
