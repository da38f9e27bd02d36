"""The averaging of gradients over a window that grows as the learning rate falls.

An optimizer averages gradients g by a recursion

    m ← β·m + c·g

whose *gain* is the value that m would have had every gradient been 1: the same recursion, fed with ones. A zero stays
zero while |m| ≤ λ·gain, and no rate appears in that, so a falling rate alone never stops the noise of mini-batches from
reviving zeros. Here the window of the average grows instead,

    1 − β_t = (1 − β)·(lr_t/lr_peak)²,    lr_peak the largest rate so far,

while the update under a constant gradient stays as long as it would be with β (:meth:`Metric.with_averaging`).

All of it is written once, for the numbers of the host and for tensors on a device that the host does not wait for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchlasso.optim.metric import Metric
from torchlasso.optim.unseen import Number
from torchlasso.selection import Group

# The averaging window grows with this power of lr_peak / lr. Measured in docs/results: with 1 the support goes on
# changing to the end, with 3 the last epochs move too slowly to reach as low an objective.
POWER = 2
# The window is lengthened at most this much as the learning rate falls to zero.
SMALLEST_SHARE = 1e-8


@dataclass(frozen=True)
class Averaged:
    """The averaging of one step.

    Attributes:
        options: the options of the optimizer's update in this step.
        gain: the gain after it.
        plain: the gain after it had the window never been lengthened.
    """

    options: Group
    gain: Number
    plain: Number


def peak_of(peak: Number, lr: Number) -> Number:
    """Return the largest rate so far."""
    return _larger(peak, lr)


def share_of(lr: Number, peak: Number) -> Number:
    """Return (1 − β_t)/(1 − β), which is 1 until the rate has been above zero."""
    never = peak == 0
    return _larger(((lr + never) / (peak + never)) ** POWER, SMALLEST_SHARE)


def averaged(
    metric: Metric, options: Mapping[str, Any], share: Number, age: Number, gain: Number, plain: Number
) -> Averaged:
    """Return the averaging of the next step.

    Args:
        metric: of the optimizer.
        options: of a parameter group.
        share: see :func:`share_of`.
        age: the number of updates so far; None where it does not matter.
        gain, plain: see :class:`Averaged`; before the step.
    """
    now = dict(options)
    plain = metric.gain(now, plain)
    if now["averaging"] and averages(metric, now) and not _settles_by_itself(now):
        now.update(metric.with_averaging(now, share, age, gain, plain))
    return Averaged(now, metric.gain(now, gain), plain)


def _settles_by_itself(options: Group) -> bool:
    """Return whether zeros settle without a longer window: latent weights average over all steps, held zeros stay."""
    return bool(options.get("held")) or options.get("form") in ("latent", "normal-map")


def averages(metric: Metric, options: Group) -> bool:
    """Return whether gradients are averaged; a tensor is not read: it stands for a β above zero."""
    beta = metric.averaging(options)
    return isinstance(beta, Tensor) or beta != 0


def _larger(a: Number, b: Number) -> Number:
    return torch.clamp(a, min=b) if isinstance(a, Tensor) else max(a, b)
