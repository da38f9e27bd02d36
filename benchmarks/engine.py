"""Many trainings at once against one by one: five folds of twenty λ, and the trials of a sweep.

The path is trained on all rows and on five folds of the handwritten digits, with 20 points of given λ each: with cold
starts these are 120 trainings that do not depend on each other, with warm starts 6. ``sequence`` runs them in one
process, ``joblib`` and ``ray`` in two, each with one thread. The time is that of all trainings, with the start of the
processes and without it (a first call of an empty function in each, which imports everything). The results must be the
same to the bit. ``trial`` times the trials of a sweep: all of a trial but its training steps is overhead.

Each measurement is appended to ``--out``, and not made again; the last lines are a table of all.

    python benchmarks/engine.py sequence/cold joblib/cold ray/cold sequence/warm joblib/warm trial
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from torchlasso.engine import Engine
from torchlasso.path import Point
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.kept_rows import rows_for
from torchlasso.runs.observer import SILENT
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.path_trainings import train_path
from torchlasso.runs.pretraining import options_from
from torchlasso.runs.recipes import nothing_given
from torchlasso.runs.sweeping.record import SweepTrial
from torchlasso.runs.sweeping.training import train_trial

DATA = {"data": "digits", "model": "lenet-300-100"}
FOLDS, POINTS, LAMS = 5, 20, (1e-4, 3e-2)
EPOCHS = {"cold": 12, "warm": 20}  # of each cold training; of the dense model and of each of the points of a path
TRIALS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", nargs="*", help="such as sequence/cold, joblib/warm, ray/cold, trial")
    parser.add_argument("--epochs", type=int, help="of each training, instead of the usual number")
    parser.add_argument("--out", default="benchmarks/results/engine.jsonl")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    torch.set_num_threads(1)
    for name in arguments.measured:
        if name in measured_in(out):
            continue
        engine, _, start = name.partition("/")
        load = os.getloadavg()[0]
        found = trials() if engine == "trial" else path_by(engine, start, arguments.epochs or EPOCHS[start])
        with out.open("a") as file:
            file.write(json.dumps({"name": name, "load": round(load, 2), **found}) + "\n")
        print(f"{name}: {found}", flush=True)
    table(measured_in(out))


def measured_in(out: Path) -> dict[str, dict[str, Any]]:
    lines = out.read_text().splitlines() if out.exists() else []
    return {each["name"]: each for each in map(json.loads, lines)}


def path_by(name: str, start: str, epochs: int) -> dict[str, Any]:
    """Time the trainings of a path and its folds."""
    each = None if start == "cold" else epochs
    path = PathOptions(points=POINTS, lams=LAMS, folds=FOLDS, start=start, epochs_each=each, collapse=1.0)
    given = {**nothing_given(), **DATA, "epochs": epochs, "path": path}
    del given["extensions"], given["pretrained"]
    options = options_from(given)
    inputs, rows = rows_for(options)
    experiment = Experiment(options, inputs)
    engine = Engine(jobs=1) if name == "sequence" else Engine(name, jobs=2)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(place)
        folder.start(experiment)
        begin = time.perf_counter()
        with engine.started() as workers:
            dict(workers.run(nothing, range(4), lambda number: (number,)))  # so that each worker has one
            ready = time.perf_counter()
            points, folds = train_path(experiment, path, rows, folder, StartedEngine(workers), SILENT)
            end = time.perf_counter()
    return {
        "trainings": (1 + FOLDS) * (POINTS if start == "cold" else 1),
        "start": round(ready - begin, 2),
        "seconds": round(end - ready, 2),
        "training": round(sum(point.seconds for each in (points, *folds) for point in each), 2),
        "digest": digest([points, *folds]),
    }


class StartedEngine(Engine):
    """An engine whose workers were started before."""

    def __init__(self, workers: Any) -> None:
        object.__setattr__(self, "workers", workers)

    def started(self) -> Any:
        from contextlib import nullcontext

        return nullcontext(self.workers)  # type: ignore[attr-defined]


def nothing(number: int) -> int:
    """Import what a training needs."""
    import torchlasso.runs.path_trainings

    time.sleep(0.2)
    return number + 0 * len(torchlasso.runs.path_trainings.__name__)


def digest(paths: list[list[Point]]) -> str:
    """Return a digest of all figures of the points, apart from their times."""
    text = json.dumps([[asdict(replace(point, seconds=0.0)) for point in points] for points in paths])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trials() -> dict[str, Any]:
    """Time the trials of a sweep one after the other in this process, each in three parts as in a sweep."""
    given = {**nothing_given(), **DATA, "sparsity": 0.9, "epochs": 8}
    del given["extensions"], given["pretrained"], given["path"]
    found = []
    with tempfile.TemporaryDirectory() as place:
        for number in range(1 + TRIALS):
            trial, begin = SweepTrial(number, 0, {"lr": 1e-3 * (1 + number)}), time.perf_counter()
            for share in (0.25, 0.5, 1.0):
                trial = train_trial(trial, given, Path(place) / f"{number}", (), share)
            assert trial.point is not None, trial.error
            found.append(time.perf_counter() - begin - trial.point.seconds)
    return {"first": round(found[0], 3), "overhead": [round(each, 3) for each in found[1:]]}


def table(known: dict[str, dict[str, Any]]) -> None:
    """Print the measurements side by side."""
    print(f"{'':<16} {'trainings':>9} {'seconds':>8} {'start':>6} {'times as fast':>13} {'with start':>10}  same  load")
    for name, each in known.items():
        if name == "trial":
            continue
        base = known.get(f"sequence/{name.partition('/')[2]}", each)
        ratio, whole = base["seconds"] / each["seconds"], base["seconds"] / (each["seconds"] + each["start"])
        same = "yes" if base["digest"] == each["digest"] else "NO"
        print(
            f"{name:<16} {each['trainings']:>9} {each['seconds']:>8.1f} {each['start']:>6.1f} {ratio:>13.2f} "
            f"{whole:>10.2f}  {same:<4}  {each['load']:.1f}"
        )
    if "trial" in known:
        each = known["trial"]
        low, high, usual = min(each["overhead"]), max(each["overhead"]), statistics.median(each["overhead"])
        print(f"overhead of a trial: {each['first']:.2f} s of the first, then {usual:.3f} s ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
