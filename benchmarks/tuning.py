"""The search for the knobs of a method: sweeps over their values, or a bisection of λ for methods without a target."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Knobs = dict[str, Any]
Run = dict[str, Any]  # a line of --out: the settings of a training, and its results
Train = Callable[[Knobs], Run]


def is_near(reached: float, zeros: float) -> bool:
    return abs(reached - zeros) <= 0.02 * (1 - zeros)


def log_left(zeros: float) -> float:
    return math.log(max(1 - zeros, 1e-4))


def error_at(runs: Iterable[Run], zeros: float) -> float:
    """Interpolate the error at this share of zeros; if all runs are on one side, take the nearest."""
    points = sorted((run["zeros"], run["error"]) for run in runs)
    denser, sparser = [p for p in points if p[0] <= zeros], [p for p in points if p[0] >= zeros]
    (low, error), (high, other) = (denser or sparser[:1])[-1], (sparser or denser[-1:])[0]
    done = (log_left(low) - log_left(zeros)) / (log_left(low) - log_left(high)) if low < high else 0.0
    return error + done * (other - error)


class Sweeps:
    """Tune one knob after the other, with the best values of the knobs before it; the first values are the start."""

    def __init__(self, **knobs: Sequence[Any]) -> None:
        self.knobs, self.found = knobs, dict[float, list[Run]]()

    def explore(self, train: Train, zeros: float, trials: int) -> None:
        best = {name: values[0] for name, values in self.knobs.items()}
        found = self.found[zeros] = [train(best)]
        for name, values in itertools.islice(itertools.cycle(self.knobs.items()), trials * len(self.knobs)):
            tried = [run["knobs"] for run in found]
            new = [knobs for knobs in ({**best, name: value} for value in values) if knobs not in tried]
            found += map(train, new[: trials - len(found)])
            best = self.choose(zeros)

    def choose(self, zeros: float) -> Knobs:
        """Return the knobs with the least error among the runs with enough zeros, up to a tenth more weights."""
        enough = [run for run in self.found[zeros] if 1 - run["zeros"] <= 1.1 * (1 - zeros)]
        densest = max(self.found[zeros], key=lambda run: run["zeros"])
        return min(enough or [densest], key=lambda run: (run["error"], run["loss"]))["knobs"]


class Bisection:
    """A bisection of λ for settings of the other knobs; its runs serve all shares of zeros.

    Every setting is trained with the first λ. Those that no other one beats, with as many zeros and as small an error,
    go on to the bisection, in turn.
    """

    def __init__(self, start: float, **knobs: Sequence[Any]) -> None:
        settings = [dict(zip(knobs, values, strict=True)) for values in itertools.product(*knobs.values())]
        self.start, self.found = start, [(setting, list[Run]()) for setting in settings]
        self.turns: Iterator[tuple[Knobs, list[Run]]] | None = None

    def explore(self, train: Train, zeros: float, trials: int) -> None:
        if self.turns is None:
            for setting, found in self.found:
                found.append(train({**setting, "lam": self.start}))
            self.turns = itertools.cycle(self._unbeaten())
        for setting, found in itertools.islice(self.turns, trials):
            lam = self.guess(found, zeros)
            if all(lam != run["knobs"]["lam"] for run in found):
                found.append(train({**setting, "lam": lam}))

    def _unbeaten(self) -> list[tuple[Knobs, list[Run]]]:
        """Return the settings that no other one beats."""
        points = [(first["zeros"], -first["error"]) for _, (first, *_) in self.found]

        def is_beaten(point: tuple[float, float]) -> bool:
            return any(other != point and other[0] >= point[0] and other[1] >= point[1] for other in points)

        return [each for each, point in zip(self.found, points, strict=True) if not is_beaten(point)]

    def guess(self, found: list[Run], zeros: float) -> float:
        """Return the λ to try next."""
        points = sorted((run["zeros"], run["knobs"]["lam"]) for run in found)
        near = [lam for reached, lam in points if is_near(reached, zeros)]
        if near:
            return near[0]
        denser, sparser = [p for p in points if p[0] < zeros], [p for p in points if p[0] > zeros]
        if not sparser:
            lam = 5 * max(lam for _, lam in denser)
        elif not denser:
            lam = min(lam for _, lam in sparser) / 5
        else:
            (low, lam), (high, larger) = denser[-1], sparser[0]
            lam *= (larger / lam) ** ((log_left(low) - log_left(zeros)) / (log_left(low) - log_left(high)))
        return float(f"{lam:.3g}")

    def choose(self, zeros: float) -> Knobs:
        """Return the setting with the least error at this share; if none has runs on both sides, the nearest run."""
        around = [(s, f) for s, f in self.found if {run["zeros"] > zeros for run in f} == {False, True}]
        if around:
            setting, found = min(around, key=lambda pair: error_at(pair[1], zeros))
            return {**setting, "lam": self.guess(found, zeros)}
        runs = [run for _, found in self.found for run in found]
        return min(runs, key=lambda run: abs(log_left(run["zeros"]) - log_left(zeros)))["knobs"]
