"""The parts of a sweep: axes, the rule by which trials are pruned, the suggestions of a search, the frontier."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Any

import pytest

from torchlasso.path import Point
from torchlasso.runs.sweeping.axes import parse_axis, with_values
from torchlasso.runs.sweeping.options import SweepOptions
from torchlasso.runs.sweeping.pruning import FEWEST, Standing, pruned
from torchlasso.runs.sweeping.record import DONE, FAILED, SweepRecord, SweepTrial
from torchlasso.runs.sweeping.suggesting import suggest
from torchlasso.training.evaluation import Evaluation


def point(number: int, sparsity: float, error: float, size: int = 1000) -> Point:
    found = Evaluation(error, 1 - error, error, error)
    return Point(number, 0.1, sparsity, round(size * (1 - sparsity)), found, None, 0.01, None, epochs=1, seconds=1.0)


def trial(number: int, sparsity: float, error: float, **more: Any) -> SweepTrial:
    return SweepTrial(number, 0, {"lr": 0.1}, DONE, point(number, sparsity, error), **more)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=1e-3,3e-3", (0.001, 0.003)),
        ("epochs=3,5", (3, 5)),
        ("penalty=l1,mcp:gamma=3", ("l1", "mcp:gamma=3")),
        ("optimizer=adam:betas=0.9/0.99,eps=1e-6|sgd", ("adam:betas=0.9/0.99,eps=1e-6", "sgd")),
        ("shrink=true,false", (True, False)),
        ("reweight=none,0.1", (None, 0.1)),
        ("over=none,units", (None, "units")),
        ("model.width=8,16", (8, 16)),
        ("input-dropout=0,0.2", (0.0, 0.2)),
    ],
)
def test_an_axis_has_values_of_the_kind_that_its_option_takes(text: str, values: tuple[object, ...]) -> None:
    found = parse_axis(text).values
    assert (found, [type(value) for value in found]) == (values, [type(value) for value in values])


@pytest.mark.parametrize(
    ("text", "ends", "whole", "logarithmic"),
    [
        ("lr=1e-4..1e-2", (1e-4, 1e-2), False, True),
        ("sparsity=0.8..0.95", (0.8, 0.95), False, False),
        ("epochs=2..40", (2, 40), True, True),
        ("hold=0..0.5", (0.0, 0.5), False, False),
    ],
)
def test_a_range_over_a_factor_of_ten_is_logarithmic(
    text: str, ends: tuple[float, float], whole: bool, logarithmic: bool
) -> None:
    axis = parse_axis(text)
    assert (axis.ends, axis.is_whole, axis.is_logarithmic) == (ends, whole, logarithmic)


def test_options_of_a_value_are_added_to_the_value_of_the_trial() -> None:
    given = {"penalty": "l1", "model": "mlp"}
    assert with_values(given, {"penalty.gamma": 3, "penalty": "mcp", "model.width": 8}) == {
        "penalty": "mcp:gamma=3",
        "model": "mlp:width=8",
    }


def test_a_trial_is_pruned_if_half_of_those_that_are_as_sparse_are_better() -> None:
    standings = {i: Standing(0.1 * i, zeros=0.5 + 0.05 * (i % 3)) for i in range(12)}
    for number, own in standings.items():
        others = [each.badness for key, each in standings.items() if key != number and each.zeros >= own.zeros]
        expected = len(others) >= FEWEST and own.badness > statistics.median(others)
        assert (number in pruned(standings)) == expected
    assert pruned(standings)


def test_denser_trials_do_not_prune_a_sparse_one() -> None:
    dense = {i: Standing(0.01, zeros=0.5) for i in range(20)}
    assert pruned({**dense, 99: Standing(0.5, zeros=0.9)}) == []
    assert pruned({**dense, 99: Standing(0.5, zeros=0.5)}) == [99]


def test_larger_models_do_not_prune_a_small_one() -> None:
    """The same share of zeros leaves more weights in them."""
    large = {i: Standing(0.01, zeros=0.9, model="mlp:width=256") for i in range(20)}
    assert pruned({**large, 99: Standing(0.5, zeros=0.9, model="mlp:width=4")}) == []
    assert pruned({**large, 99: Standing(0.5, zeros=0.9, model="mlp:width=256")}) == [99]


SEARCH = {"lr": "lr=1e-4..1e-1", "sparsity": "sparsity=0.5..0.9", "penalty": "penalty=l1,mcp"}


def options_of(search: str, *names: str, **more: Any) -> SweepOptions:
    return SweepOptions(search, vary=tuple(SEARCH[name] for name in names), **more)


def trials_of(values: list[dict[str, Any]], round_: int = 0) -> list[SweepTrial]:
    """Trials whose error is the distance of their learning rate from 0.01, in powers of ten."""
    found = []
    for number, each in enumerate(values, 1):
        error = abs(2 + math.log10(each["lr"])) / 4
        found.append(SweepTrial(number, round_, each, DONE, point(number, each.get("sparsity", 0.5), error)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("search", ["random", "tpe"])
def test_suggestions_depend_on_the_seed_and_the_trials_before(search: str) -> None:
    options = options_of(search, "lr", "sparsity", "penalty", trials=12, round=6)
    first = suggest(options, [], seed=3)
    assert first == suggest(options, [], seed=3) != suggest(options, [], seed=4)
    assert len(first) == (12 if search == "random" else 6)
    for each in first:
        assert 1e-4 <= each["lr"] <= 1e-1  # type: ignore[operator]
        assert 0.5 <= each["sparsity"] <= 0.9  # type: ignore[operator]
        assert each["penalty"] in ("l1", "mcp")
        assert float(f"{each['lr']:.6g}") == each["lr"]
    done = trials_of(first)
    done[1] = replace(done[1], state=FAILED, point=None)
    again = suggest(options, done, seed=3)
    assert again == suggest(options, done, seed=3)
    assert len(again) == 12 - len(first)
    assert not {each["lr"] for each in again} & {each["lr"] for each in first}
    assert suggest(options, [*done, *trials_of(again, 1)], seed=3) == []


@pytest.mark.slow
def test_the_search_finds_the_better_rates() -> None:
    """After four rounds it suggests rates nearer to the best one than a random search does."""
    options, trials = options_of("tpe", "lr", trials=60, round=10), []
    for number in range(6):
        new = trials_of(suggest(options, trials, seed=0), number)
        trials += [replace(each, number=len(trials) + each.number) for each in new]
    errors = [each.point.badness for each in trials if each.point is not None]
    assert statistics.median(errors[40:]) < 0.5 * statistics.median(errors[:10])  # type: ignore[type-var]


def test_the_frontier_has_the_trials_that_no_sparser_one_surpasses() -> None:
    trials = (trial(1, 0.5, 0.1), trial(2, 0.9, 0.3), trial(3, 0.8, 0.3), trial(4, 0.6, 0.05), trial(5, 0.95, 0.5))
    record = SweepRecord(SweepOptions(vary=("lr=1,2",)), {}, trials)
    assert [each.number for each in record.frontier] == [4, 2, 5]


def test_the_frontier_counts_weights_where_models_differ_in_size() -> None:
    large, small = trial(1, 0.9, 0.1), replace(trial(2, 0.5, 0.1), point=point(2, 0.5, 0.1, size=20))
    record = SweepRecord(SweepOptions(vary=("model.width=8,256",)), {}, (large, small))
    assert [each.number for each in record.frontier] == [2]
