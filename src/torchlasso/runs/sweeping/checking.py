"""Check the values of a sweep before the first training: each must be possible in some trial."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torchlasso._core.text import first_line
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.kept_rows import rows_for
from torchlasso.runs.pretraining import options_from
from torchlasso.runs.sweeping.axes import combinations, with_values
from torchlasso.runs.sweeping.options import SweepOptions

COMBINATIONS, TRIES = 2_000, 20  # that are looked at in all, and that are tried with each value
GivenValue = tuple[str, Any]  # an option and its value


def check_values(options: SweepOptions, given: Mapping[str, Any]) -> None:
    """Refuse values that no trial can have, and data that cannot be read or have no validation rows.

    A value that only some others exclude is left to the trials that have it.

    Args:
        options: of the sweep.
        given: the options that all trainings have.

    Raises:
        ValueError: no combination with a value can be trained; the message is the first reason.
    """
    good: set[GivenValue] = set()
    tries: Counter[GivenValue] = Counter()
    reasons: dict[GivenValue, str] = {}
    for values in itertools.islice(combinations(options.axes), COMBINATIONS):
        unknown = [pair for pair in values.items() if pair not in good and tries[pair] < TRIES]
        if not unknown:
            continue
        try:
            _rehearse(given, values)
        except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError) as error:
            tries.update(unknown)
            for pair in unknown:
                reasons.setdefault(pair, first_line(error))
        else:
            good |= {*values.items()}
    bad = [pair for pair in reasons if pair not in good]
    if bad:
        name, value = max(bad, key=lambda pair: tries[pair])  # the others may be bad only with this one
        raise ValueError(f"--vary {name}: {reasons[name, value]}" if good else reasons[name, value])


def _rehearse(given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Do the first step of a training with these values."""
    options = options_from(with_values(given, values))
    inputs, rows = rows_for(options)
    if not len(rows.validation[0]):
        raise ValueError("a sweep chooses by validation rows: give --validation above 0")
    experiment = Experiment(options, inputs)
    experiment.trainer(experiment.build_model(), rows.train, None, rows.weights).trainer.rehearse()
