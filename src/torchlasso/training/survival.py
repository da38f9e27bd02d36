"""The partial likelihood of Cox (1972) as a loss: the order in which events happen, given the outputs of a model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

TIES = ("breslow", "efron")


@dataclass(frozen=True)
class EventOrder:
    """Rows in the order of their times, and the events among them.

    Attributes:
        rows: the rows, the earliest first, (n,).
        start: for each place in this order, the first place of the same time, (n,); the rows from there on are at risk.
        events: the places of the events, (events,).
        tie: for each event, the number of its time among the times of events, (events,).
        upto: for each place, the number of events up to its time, (n,).
        part: for each event, the share of the risk of the events of its time that does not count for it, (events,).
    """

    rows: Tensor
    start: Tensor
    events: Tensor
    tie: Tensor
    upto: Tensor
    part: Tensor

    @classmethod
    def of(cls, time: Tensor, event: Tensor, ties: str) -> EventOrder:
        rows = time.argsort(stable=True)
        time, event = time[rows], event[rows]
        start = torch.searchsorted(time, time)
        events = event.nonzero()[:, 0]
        times, tie = torch.unique_consecutive(time[events], return_inverse=True)
        upto = torch.searchsorted(time[events], time, right=True)
        part = torch.zeros(len(events), dtype=torch.float64)
        if ties == "efron" and len(events):
            counts = torch.bincount(tie, minlength=len(times))
            before = counts.cumsum(0) - counts  # events at earlier times
            part = (torch.arange(len(events)) - before[tie]).double() / counts[tie]
        return cls(rows, start, events, tie, upto, part)

    def tied(self, of_events: Tensor) -> Tensor:
        """Return, for each event, the sum over the events of its time."""
        times = int(self.tie[-1]) + 1 if len(self.tie) else 0
        return of_events.new_zeros(times, *of_events.shape[1:]).index_add(0, self.tie, of_events)[self.tie]


@dataclass(frozen=True)
class SurvivalTargets:
    """Times of rows, and whether an event ended each of them, with the negative log partial likelihood of outputs.

        ℓ(η) = 1/n · Σ over events i of w_i · (log Σ over rows j with t_j ≥ t_i of w_j·exp(η_j)  −  η_i)

    This is Breslow's form for events at the same time. In Efron's form, each of d such events also leaves out a share
    of their own risk, 0, 1/d, … (d − 1)/d, and the first term of all of them has their mean weight.

    Args:
        time: the times, (n,).
        event: whether each is the time of an event, (n,); otherwise the row left before it had one.
        weights: the weight of each row, (n,), with mean 1. Those of weight 0 have to be left out before it is a loss.
        ties: ``"breslow"`` or ``"efron"``.
    """

    time: Tensor
    event: Tensor
    weights: Tensor
    ties: str = "breslow"
    outputs: ClassVar[int] = 1
    is_shift_invariant: ClassVar[bool] = False
    ignores_shifts: ClassVar[bool] = True
    is_quadratic: ClassVar[bool] = False

    @cached_property
    def _order(self) -> EventOrder:
        return EventOrder.of(self.time, self.event, self.ties)

    @cached_property
    def _own(self) -> Tensor:
        """The weight of each event, divided by n, (events,)."""
        return self.weights[self._order.rows][self._order.events] / len(self.time)

    @cached_property
    def _shares(self) -> Tensor:
        """The weight of the first term of each event, divided by n, (events,)."""
        if self.ties == "breslow":
            return self._own
        return self._order.tied(self._own) / self._order.tied(torch.ones_like(self._own))

    def value(self, outputs: Tensor) -> Tensor:
        """Return the loss of outputs (n, 1) for all rows, a scalar."""
        order, (_, logs) = self._order, self._log_sums(outputs)
        linear = self._own * outputs[order.rows, 0][order.events]
        return (self._shares * logs).sum() - linear.sum()

    def slope(self, outputs: Tensor) -> Tensor:
        """Return its gradient, (n, 1)."""
        order, risk, (sums, logs) = self._order, self._log_risk(outputs), self._log_sums(outputs)
        reach = (self._shares.log() - logs).logcumsumexp(0)  # log of the sum of c/D over the events so far
        slope = (risk + torch.cat([reach.new_full((1,), -torch.inf), reach])[order.upto]).exp()
        if order.part.any():
            left = order.tied(order.part.to(logs) * self._shares * (sums - logs).exp())
            slope = slope.index_add(0, order.events, -(risk[order.events] - sums).exp() * left)
        slope = slope.index_add(0, order.events, -self._own)
        return torch.zeros_like(slope).index_copy(0, order.rows, slope)[:, None]

    def curvature(self, outputs: Tensor) -> RiskCurvature:
        """Return its second derivatives."""
        order, risk = self._order, self._log_risk(outputs)
        shift = risk.max()
        return RiskCurvature(order, (risk - shift).exp(), self._shares, (shift - self._log_sums(outputs)[1]).exp())

    def likelihood_after(self, outputs: Tensor, rows: int) -> float:
        """Return the gain in log partial likelihood by all rows over the first ``rows``, for each event of the others.

        (log PL − log PL of the first rows)/(the weight of the other events), of Verweij and Van Houwelingen (1993).
        """
        known = self.weights > 0
        first, last = (
            replace(self, time=self.time[part], event=self.event[part], weights=self.weights[part])
            for part in (known & (torch.arange(len(known)) < rows), known)
        )
        gained = len(first.time) * first.value(outputs[known][: len(first.time)]) - len(last.time) * last.value(
            outputs[known]
        )
        return float(gained / (self.weights * self.event)[rows:].sum())

    @property
    def packed(self) -> Tensor:
        """The targets as numbers for :meth:`packed_loss`: the rank of the time, the event, and the weight, (n, 3)."""
        ranks = torch.unique(self.time, return_inverse=True)[1]  # exact in single precision, too
        return torch.stack([ranks.to(self.weights), self.event.to(self.weights), self.weights], dim=1)

    def packed_loss(self, outputs: Tensor, packed: Tensor) -> Tensor:
        """Return the loss for some rows of :attr:`packed`; only these are at risk."""
        return SurvivalTargets(packed[:, 0], packed[:, 1] > 0, packed[:, 2], self.ties).value(outputs)

    def some(self, rows: Tensor) -> SurvivalTargets:
        """Return the targets of some rows, given by their numbers."""
        weights = self.weights[rows]
        return SurvivalTargets(self.time[rows], self.event[rows], weights / weights.mean().clamp_min(1e-300), self.ties)

    def to(self, dtype: torch.dtype) -> SurvivalTargets:
        """Return the targets in another precision; the times, of which only the order counts, as they are."""
        return SurvivalTargets(self.time, self.event, self.weights.to(dtype), self.ties)

    def _log_risk(self, outputs: Tensor) -> Tensor:
        """Return log(w·exp(η)) of the rows in order, (n,)."""
        return outputs[self._order.rows, 0] + self.weights[self._order.rows].log()

    def _log_sums(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the risk at the time of each event, (events,), and of the part D that counts."""
        order, risk = self._order, self._log_risk(outputs)
        every = risk.flip(0).logcumsumexp(0).flip(0)[order.start[order.events]]
        if not order.part.any():
            return every, every
        shares = order.tied((risk[order.events] - every).exp())
        return every, every + torch.log1p(-order.part.to(shares) * shares)


@dataclass(frozen=True)
class RiskCurvature:
    """The second derivatives Σ over events of c·(diag(π) − π·πᵀ), with π the shares of the rows in its risk.

    Args:
        order: the order of the rows.
        risk: w·exp(η) of each row in order, up to a factor, (n,).
        shares: c of each event, (events,).
        inverse: the inverse of D of each event, with the same factor, (events,).
    """

    order: EventOrder
    risk: Tensor
    shares: Tensor
    inverse: Tensor

    @cached_property
    def diagonal(self) -> Tensor:
        """Σ of c·π over the events, for each row in order, (n, 1)."""
        return self._spread((self.shares * self.inverse)[:, None])

    def times(self, directions: Tensor) -> Tensor:
        """Return their product with directions of the outputs, (n, 1)."""
        own = directions[self.order.rows]
        found = self.diagonal * own - self._spread((self.shares * self.inverse)[:, None] * self._means(own))
        return torch.zeros_like(found).index_copy(0, self.order.rows, found)

    def between(self, x: Tensor) -> Tensor:
        """Return the second derivatives by the weights of inputs x, (n, p): (p, p)."""
        own = x[self.order.rows]
        means = self._means(own)
        return own.mT @ (self.diagonal * own) - means.mT @ (self.shares[:, None] * means)

    def _means(self, values: Tensor) -> Tensor:
        """Return Σ of π·values for each event, (events, p)."""
        order, weighted = self.order, self.risk[:, None] * values
        sums = weighted.flip(0).cumsum(0).flip(0)[order.start[order.events]]
        if order.part.any():
            sums = sums - order.part.to(values)[:, None] * order.tied(weighted[order.events])
        return self.inverse[:, None] * sums

    def _spread(self, of_events: Tensor) -> Tensor:
        """Return Σ over events of π·D·of_events, for each row in order, (n, 1)."""
        order = self.order
        sums = torch.cat([of_events.new_zeros(1, 1), of_events.cumsum(0)])[order.upto]
        if order.part.any():
            left = order.tied(order.part.to(of_events)[:, None] * of_events)
            sums = sums.index_add(0, order.events, -left)
        return self.risk[:, None] * sums


def cox(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of Cox's partial likelihood in Efron's form for the rows of a batch, a scalar.

    Args:
        outputs: the log risks, (n, 1).
        targets: the rank of the time, and 1 for an event or 0, (n, 2).

    Examples:
        >>> cox(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))  # log(e + 1) − 1, over two rows
        tensor(0.1566)
    """
    return weighted_cox(outputs, targets, torch.ones(len(targets), dtype=outputs.dtype, device="cpu"))


def weighted_cox(outputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return :func:`cox` of rows with weights, (n,), whose sum is not divided by; one of weight 0 is as none.

    Examples:
        >>> outputs, targets = torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> weighted_cox(outputs, targets, torch.tensor([1.0, 2.0]))  # log(e + 2) − 1, over two rows
        tensor(0.2757)
    """
    weights = weights.to(outputs.dtype).cpu()
    known = weights > 0
    time, event, own = targets[:, 0].cpu()[known], targets[:, 1].cpu()[known] > 0, weights[known]
    found = SurvivalTargets(time, event, own, "efron").value(outputs.cpu()[known])
    return found.to(outputs.device) * (int(known.sum()) / len(targets))
