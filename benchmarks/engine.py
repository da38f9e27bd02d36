"""Many trainings at once against one by one: five folds of twenty λ, and the trials of a sweep.

The path is trained on all rows and on five folds of the handwritten digits, with 20 points of given λ each: with cold
starts these are 120 trainings that do not depend on each other, with warm starts 6. ``sequence`` runs them in one
process, ``joblib`` and ``ray`` in two, each with one thread. The time is that of all trainings, with the start of the
processes and without it (a first call of an empty function in each, which imports everything). Other programs lengthen
it, so the processor time is given, too: of all trainings, and of the busier process, which decides when all is done
where both have a core. The results must be the same to the bit. ``trial`` measures the trials of a sweep: all of a
trial but its training steps is overhead.

Each measurement is appended to ``--out``, and not made again; the last lines are a table of all.

    python benchmarks/engine.py sequence/cold joblib/cold ray/cold sequence/warm joblib/warm trial
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from torchlasso.engine import Engine
from torchlasso.path import Point
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.kept_rows import rows_for
from torchlasso.runs.path_options import PathOptions
from torchlasso.runs.path_trainings import follow_fold, train_point
from torchlasso.runs.pretraining import options_from
from torchlasso.runs.recipes import nothing_given
from torchlasso.runs.sweeping.record import SweepTrial
from torchlasso.runs.sweeping.training import train_trial
from torchlasso.training.trainer import Trainer

DATA = {"data": "digits", "model": "lenet-300-100"}
FOLDS, POINTS, LAMS = 5, 20, (1e-4, 3e-2)
EPOCHS = {"cold": 6, "warm": 4}  # of each cold training; of the dense model and of each of the points of a path
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
    inputs, _ = rows_for(options)
    experiment = Experiment(options, inputs)
    engine = Engine(jobs=1) if name == "sequence" else Engine(name, jobs=2)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(place)
        folder.start(experiment)
        keys = [(fold, i) for fold in (None, *range(FOLDS)) for i in range(POINTS if start == "cold" else 1)]
        function = train_point if start == "cold" else follow_fold
        begin = time.perf_counter()
        with engine.started() as workers:
            dict(workers.run(nothing, range(4), lambda number: (number,)))  # so that each worker has one
            ready = time.perf_counter()
            arguments = partial(arguments_of, function, experiment, folder)
            spent = [found for _, found in workers.run(in_processor_time, keys, arguments)]
            end = time.perf_counter()
        for fold in (None, *range(FOLDS)):
            if start == "cold":
                folder.gather_alone(POINTS, fold)
        paths = [folder.read_points(fold) for fold in (None, *range(FOLDS))]
    by_process: dict[int, float] = defaultdict(float)
    for process, seconds in spent:
        by_process[process] += seconds
    return {
        "trainings": len(keys),
        "start": round(ready - begin, 2),
        "seconds": round(end - ready, 2),
        "processor": round(sum(by_process.values()), 2),
        "busier": round(max(by_process.values()), 2),
        "digest": digest(paths),
    }


def arguments_of(function: Any, experiment: Experiment, folder: RunFolder, key: tuple[int | None, int]) -> Any:
    fold, index = key
    return (function, experiment, folder, fold, *((index,) if function is train_point else ()))


def in_processor_time(function: Any, *arguments: Any) -> tuple[int, float]:
    """Call a function, and return the process and its processor time."""
    begin = time.process_time()
    function(*arguments)
    return os.getpid(), time.process_time() - begin


def nothing(number: int) -> int:
    """Do nothing for a while: this module imports what a training needs."""
    time.sleep(0.3)
    return number


def digest(paths: list[list[Point]]) -> str:
    """Return a digest of all figures of the points, apart from their times."""
    text = json.dumps([[asdict(replace(point, seconds=0.0)) for point in points] for points in paths])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trials() -> dict[str, Any]:
    """Time the trials of a sweep one after the other in this process, each in three parts as in a sweep."""
    given = {**nothing_given(), **DATA, "sparsity": 0.9, "epochs": 8}
    del given["extensions"], given["pretrained"], given["path"]
    found, steps = [], Trainer._run_steps
    spent = 0.0

    def timed(*arguments: Any) -> None:
        nonlocal spent
        begin = time.process_time()
        steps(*arguments)
        spent += time.process_time() - begin

    Trainer._run_steps = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place:
        for number in range(1 + TRIALS):
            trial, begin, processor = SweepTrial(number, 0, {"lr": 1e-3 * (1 + number)}), time.perf_counter(), spent
            before = time.process_time()
            for share in (0.25, 0.5, 1.0):
                trial = train_trial(trial, given, Path(place) / f"{number}", (), share)
            assert trial.point is not None, trial.error
            whole = time.perf_counter() - begin - trial.point.seconds
            found.append((round(whole, 3), round(time.process_time() - before - (spent - processor), 3)))
    Trainer._run_steps = steps  # type: ignore[method-assign]
    seconds, processors = zip(*found, strict=True)
    return {"first": seconds[0], "overhead": seconds[1:], "processor": processors[1:]}


def table(known: dict[str, dict[str, Any]]) -> None:
    """Print the measurements side by side."""
    heads = ("trainings", "seconds", "start", "times as fast", "processor", "busier", "by processor")
    print(" ".join([f"{'':<15}", *heads, "same", "load"]))
    for name, each in known.items():
        if name == "trial":
            continue
        base = known.get(f"sequence/{name.partition('/')[2]}", each)
        cells = (
            f"{each['trainings']}",
            f"{each['seconds']:.1f}",
            f"{each['start']:.1f}",
            f"{base['seconds'] / each['seconds']:.2f}",
            f"{each['processor']:.1f}",
            f"{each['busier']:.1f}",
            f"{base['busier'] / each['busier']:.2f}",
        )
        line = " ".join(f"{cell:>{len(head)}}" for head, cell in zip(heads, cells, strict=True))
        print(f"{name:<15} {line} {'yes' if base['digest'] == each['digest'] else 'NO':>4} {each['load']:>4.1f}")
    if "trial" in known:
        each = known["trial"]
        usual, processor = statistics.median(each["overhead"]), statistics.median(each["processor"])
        print(
            f"overhead of a trial: {each['first']:.2f} s of the first, then {usual:.2f} s; processor {processor:.2f} s"
        )


if __name__ == "__main__":
    import engine  # so that the workers find its functions by the name of the module

    engine.main()
