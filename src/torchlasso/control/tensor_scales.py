"""Tensors that start large or move slowly: a larger λ for them, so that a target compares all weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from torchlasso.distributed.sharding import whole
from torchlasso.optim.controller import initial_lam
from torchlasso.penalties import Penalty
from torchlasso.selection import FULL_SCALES, LARGE, SIZES, Group, full_scales

# Layers start at √(1/(3·fan-in)) in torch, and at no more than 2.5 times √(1/(3·fan)) by Kaiming's and Xavier's rules,
# whichever side their fan is of.
UNUSUAL = 3.0
# Tensors that start large leave room for the others if all of them have at most this share of the weights to be left.
FEW = 0.5
FEWEST = 16  # numbers whose distribution can be told


def scale_tensors_(groups: Sequence[tuple[Group, Penalty]], steps: int, share: float) -> None:
    """Make λ larger where tensors start large or weights move slowly, in groups that have no sizes yet.

    A target in the latent form compares how far weights are above their thresholds, in all tensors, and a step is about
    as long as the learning rate. An ``nn.Embedding`` starts at 1, and so do positions and other parameters from
    ``torch.randn``, where a layer of 128 inputs starts at 0.05. In a training too short to move weights by 1 every
    layer behind the embedding would go, and words that hardly occur would stay. Likewise, thresholds grow by λ times
    the rate, so that every layer with a high rate would go and those with a low one stay: λ of single weights is in
    inverse proportion to the rate of their group. Blocks of several weights differ less from each other, and were not
    better with it.

    Args:
        groups: the penalised groups, each with its penalty.
        steps: of the search.
        share: of the weights, which is to be left.
    """
    new = [(group, penalty) for group, penalty in groups if SIZES not in group]
    if not new:
        return
    kinds = [each for group, _ in groups for each in _with_kind(group)]
    large = {p for p, by_kind in kinds if by_kind or starts_large(p)}
    if sum(p.numel() for p in large) <= FEW * share * sum(p.numel() for p, _ in kinds):
        large = set()
    others = _size([p for p, _ in kinds if p not in large])
    fastest = max(map(_rate, (group for group, _ in groups)))
    for group, penalty in new:
        # Weights that are left grow by about the threshold at the end. With half of it, most of the embedding of a
        # language model goes; with more, words that hardly occur stay in classifiers of texts.
        grown = initial_lam(group) * fastest * steps
        # a block of several tensors has one threshold
        sizes = [_factor(p, others, grown) if p in large and not penalty.over.joint else 1.0 for p in group["params"]]
        slow = fastest / _rate(group) if penalty.over.single and _rate(group) else 1.0
        group[SIZES] = sizes
        if slow != 1 or any(size != 1 for size in sizes):
            for key, scales in ((FULL_SCALES, full_scales(group)), ("lam_scales", group["lam_scales"])):
                group[key] = [slow * scale * size for scale, size in zip(scales, sizes, strict=True)]


def _rate(group: Group) -> float:
    """Return the learning rate of a group before any scheduler."""
    return float(group.get("initial_lr") or group["lr"])


def _with_kind(group: Group) -> list[tuple[Tensor, bool]]:
    """Return the parameters of a group, each with whether it starts large by its kind."""
    return list(zip(group["params"], group.get(LARGE) or [False] * len(group["params"]), strict=True))


def _factor(p: Tensor, others: float, grown: float) -> float:
    """Return the factor on λ of a tensor that starts large, given the size of the others and the growth of weights."""
    size = (_size([p]) + grown) / (others + grown) if others else 1.0
    return size if 1 < size < math.inf else 1.0


def starts_large(w: Tensor) -> bool:
    """Return whether a tensor has random numbers of an unusual size for its shape.

    The weights of a trained layer may be large because they matter. Some of them are then zero, or a few much larger
    than the others: their fourth moment, relative to the square of the second, is above that of a normal distribution,
    3. That of a uniform one is 1.8, and that of a constant 1, within the noise of as many numbers.

    Examples:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> starts_large(torch.randn(1, 65, 128)), starts_large(torch.nn.Linear(64, 128).weight)
        (True, False)
        >>> starts_large(torch.randn(128, 128) * (torch.rand(128, 128) < 0.5))
        False
    """
    count, size = w.numel(), _size([w])
    if count < FEWEST or not UNUSUAL < size * math.sqrt(3 * _fan(w)) < math.inf:
        return False
    numbers = whole(w.detach()).abs().double() / size
    fourth, full = float(numbers.pow(4).mean()), int(numbers.count_nonzero()) >= 0.9 * count
    return full and 1.5 < fourth < 3 + 4 * math.sqrt(24 / count)  # four standard errors


def _fan(w: Tensor) -> float:
    """Return the smaller one of the numbers of inputs and outputs, or the width of a row if it stands alone."""
    if w.dim() < 2:
        return 1.0
    inputs, outputs = w.numel() / w.shape[0], w.numel() / w.shape[1]
    if w.dim() > 2 and w.shape[0] == 1:  # positions, (1, number, width), or one token
        inputs, outputs = w.numel() / w.shape[1], w.shape[1] if w.shape[1] > 1 else math.inf
    return min(inputs, outputs)


def _size(tensors: Sequence[Tensor]) -> float:
    """Return the root mean square of the numbers in some tensors; 0 if they have none."""
    known = [w for w in tensors if not w.is_meta]
    count = sum(w.numel() for w in known)
    squares = sum(float(whole(w.detach()).abs().double().square().sum()) for w in known)
    return math.sqrt(squares / count) if count else 0.0
