"""The values of trials: all combinations of a grid, random ones, or those that a search suggests."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from torchlasso._core.extras import require
from torchlasso.runs.sweeping.axes import SweepAxis, Value, combinations
from torchlasso.runs.sweeping.options import GRID, RANDOM, TRIALS, SweepOptions
from torchlasso.runs.sweeping.record import DONE, PRUNED, SweepTrial

# these options decide about the number of weights left
STRENGTHS = ("model", "lam", "sparsity", "flops", "bytes", "features", "reweight", "penalty", "over")


def suggest(options: SweepOptions, trials: Sequence[SweepTrial], seed: int) -> list[dict[str, Value]]:
    """Return the values of the next round of trials; none if there are enough.

    They depend on the options, the seed and the trials of the rounds before, and on nothing else.

    Args:
        options: of the sweep.
        trials: all so far, which are over.
        seed: of the search.
    """
    if options.kind == GRID:
        return [] if trials else list(combinations(options.axes))
    wanted = (options.trials or TRIALS) - len(trials)
    if wanted <= 0:
        return []
    optuna = require("optuna", "sweep", f"--search {options.kind}")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    round_seed = (seed + (trials[-1].round + 1 if trials else 0)) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of constant_liar
        if options.kind == RANDOM:
            count, sampler = wanted, optuna.samplers.RandomSampler(seed=round_seed)
        else:
            count = min(wanted, options.round)
            sampler = optuna.samplers.TPESampler(seed=round_seed, constant_liar=True, multivariate=True)
    axes = options.axes
    space = {axis.name: _distribution(optuna, axis) for axis in axes}
    is_free = any(axis.name.partition(".")[0] in STRENGTHS for axis in axes)
    study = optuna.create_study(directions=["minimize"] * (1 + is_free), sampler=sampler)
    for trial in trials:
        if trial.state in (DONE, PRUNED) and trial.point is not None:
            known = {axis.name: _as_known(axis, trial.values[axis.name]) for axis in axes}
            figures = [trial.point.badness, trial.point.nonzero][: 1 + is_free]
            study.add_trial(optuna.trial.create_trial(params=known, distributions=space, values=figures))
    found = [study.ask(space).params for _ in range(count)]
    return [{axis.name: _as_value(axis, params[axis.name]) for axis in axes} for params in found]


def _distribution(optuna: Any, axis: SweepAxis) -> Any:
    of = optuna.distributions
    if axis.ends is None:
        return of.CategoricalDistribution(tuple(range(len(axis.values))))
    low, high = axis.ends
    kind = of.IntDistribution if axis.is_whole else of.FloatDistribution
    return kind(low, high, log=axis.is_logarithmic)


def _as_known(axis: SweepAxis, value: Value) -> Any:
    return value if axis.ends is not None else axis.values.index(value)


def _as_value(axis: SweepAxis, found: float) -> Value:
    """Return a number of a range with the digits that texts of it have, or the value of this place."""
    if axis.ends is None:
        return axis.values[int(found)]
    return int(found) if axis.is_whole else min(max(float(f"{found:.6g}"), axis.ends[0]), axis.ends[1])
