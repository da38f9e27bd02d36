"""Integrated stability paths: scores of features, bounds on the expected number of false positives, and q-values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from torchlasso.estimators.points import Numbers

POINTS = 100  # thresholds, at equal distances on a logarithmic scale
FALLING = ((1,), (1, 1), (1, 3, 1))  # Stirling numbers: Z^m by the falling factorials of Z, for m = 1, 2, 3


@dataclass(frozen=True)
class StabilityPaths:
    """The frequencies at which features are selected in halves of the data, along falling thresholds.

    Attributes:
        lams: the thresholds, (points,), falling.
        frequencies: the share of the halves in which each feature is selected, (points, features).
        scores: the frequencies, as :func:`stability_paths` integrates them, (features,).
        efp: a bound on the expected number of false positives among the features with at least this score, (features,).
        q_values: the smallest share of false positives, by this bound, of a selection with the feature, (features,).
        expected_false: the bound of Meinshausen and Bühlmann (2010) on the expected number of false positives among
            the features whose largest frequency is at least this one's, (features,).
    """

    lams: Numbers
    frequencies: Numbers
    scores: Numbers
    efp: Numbers
    q_values: Numbers
    expected_false: Numbers


def stability_paths(
    entries: Numbers, *, power: int, cutoff: float, lowest: float = 0.0, lams: Numbers | None = None
) -> StabilityPaths:
    """Integrate the stability paths of features (Melikechi and Miller 2024).

    score_j = mean over the thresholds of max(2·π_j − 1, 0)^power,   efp_j = min(I/score_j, features)

    with π_j the frequency of feature j at a threshold, and I the mean over the thresholds of :func:`null_bound`. The
    thresholds fall from the largest importance as far as I is at most the cutoff.

    Args:
        entries: the importance of each feature in each half, (halves, features), such as the largest λ at which it
            is read; it is selected at a threshold if this is at least the threshold and above 0.
        power: 1, 2 or 3.
        cutoff: the largest I.
        lowest: a threshold below which the importances are not known.
        lams: the thresholds to use instead.

    Examples:
        >>> entries = np.array([[0.5, 0.1, 0.0], [0.4, 0.0, 0.1]] * 5)
        >>> found = stability_paths(entries, power=1, cutoff=1.0, lams=np.array([0.4, 0.2, 0.1]))
        >>> found.frequencies
        array([[1. , 0. , 0. ],
               [1. , 0. , 0. ],
               [1. , 0.5, 0.5]])
        >>> found.scores, found.efp.round(2)
        (array([1., 0., 0.]), array([0.67, 3.  , 3.  ]))
    """
    pairs, features = len(entries) // 2, entries.shape[1]
    grid = _grid(entries, lowest) if lams is None else np.sort(np.asarray(lams, dtype=float))[::-1]
    frequencies = np.reshape([((entries >= lam) & (entries > 0)).mean(axis=0) for lam in grid], (-1, features))
    counts = frequencies.sum(axis=1)
    bounds = null_bound(counts, features, pairs, power)
    if lams is None and len(grid):
        means = bounds.cumsum() / np.arange(1, len(grid) + 1)
        points = max(1, int((means <= cutoff).sum()))
        grid, frequencies, bounds = grid[:points], frequencies[:points], bounds[:points]
    if not len(grid):  # nothing is ever selected
        nothing = np.full(features, float(features))
        return StabilityPaths(grid, frequencies, np.zeros(features), nothing, np.ones(features), nothing.copy())
    scores = ((2 * frequencies - 1).clip(0) ** power).mean(axis=0)
    efp = _ratio(bounds.mean(), scores, features)
    last = frequencies[-1]  # the largest: the selections grow as the thresholds fall
    classical = _ratio(last.sum() ** 2 / features, (2 * last - 1).clip(0), features)
    return StabilityPaths(grid, frequencies, scores, efp, q_values(efp), classical)


def null_bound(counts: Numbers, features: int, pairs: int, power: int) -> Numbers:
    """Bound the sum of E max(2·π_j − 1, 0)^power over the features that do not matter.

    p·E(Z/B)^m with Z binomial, of B draws with probability (q/p)²

    for B pairs, m the power, q the mean number of selected features and p the number of all. For m = 1 this needs that
    a feature that does not matter is selected with a probability of at most q/p; for m = 2 and 3, also that it is
    selected in both halves of i given pairs with a probability of at most (q/p)^(2i), for i up to m.

    Args:
        counts: q, at each threshold.
        features: p.
        pairs: B.
        power: m, from 1 to 3.

    Examples:
        >>> null_bound(np.array([10.0]), features=100, pairs=50, power=1)  # q²/p
        array([1.])
        >>> null_bound(np.array([10.0]), features=100, pairs=50, power=3).round(6)
        array([0.001082])
    """
    both = (counts / features) ** 2
    moment = np.zeros_like(both)
    drawn = np.ones_like(both)  # B(B − 1)…(B − i + 1)·(q/p)^(2i), the mean of a falling factorial of Z
    for i, number in enumerate(FALLING[power - 1]):
        drawn = drawn * (pairs - i) * both
        moment += number * drawn
    found: Numbers = features * moment / pairs**power
    return found


def q_values(efp: Numbers) -> Numbers:
    """Return for each feature the smallest bound on the share of false positives of a selection with it.

    q_j = min over t ≥ efp_j of t/|{k: efp_k ≤ t}|, at most 1

    Examples:
        >>> q_values(np.array([0.1, 0.1, 0.15, 2.0]))
        array([0.05, 0.05, 0.05, 0.5 ])
    """
    order = np.argsort(efp, kind="stable")
    counts = np.searchsorted(efp[order], efp[order], side="right")
    shares = (efp[order] / counts).clip(max=1)
    found = np.empty_like(shares)
    found[order] = np.minimum.accumulate(shares[::-1])[::-1]
    return found


def _grid(entries: Numbers, lowest: float) -> Numbers:
    """Return falling thresholds, from the largest importance to the smallest that is known everywhere."""
    known = entries[(entries > 0) & (entries >= lowest)]
    if not len(known):
        return np.empty(0)
    return np.geomspace(known.max(), known.min(), POINTS if known.max() > known.min() else 1)


def _ratio(bound: float, score: Numbers, most: int) -> Numbers:
    """Return bound/score, at most the number of features."""
    found: Numbers = np.divide(bound, score, out=np.full(len(score), float(most)), where=score > 0).clip(max=most)
    return found
