"""Candidates for the recipes of ``torchlasso train``: errors on validation rows, for several data, networks, lengths.

Each row is a case: data, network, epochs and a target for the share of zeros, or of the FLOPs with whole units. Each
column is a candidate: the values of some options. The trainings are those of ``torchlasso train``; larger data are cut
to 10,000 training rows and 2,000 validation rows. Cells are means over the seeds, in per cent; the last line has the
mean over all cases, and the mean rank. Nothing here looks at test rows.

    python benchmarks/recipes.py --folder FOLDER_WITH_DATA

FOLDER has mnist-train.parquet, isolet/isolet-train.parquet, coil20/coil20.npz, r8/r8-train.parquet and
cifar10/cifar10-train.parquet; data that are not there are left out. Every run is appended to --out, and started again
it goes on there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple
from unittest import mock

import torch

from torchlasso.control import steering
from torchlasso.runs.experiment import Experiment
from torchlasso.runs.options import Options
from torchlasso.runs.recipes import completed, nothing_given
from torchlasso.runs.rows import InputSpec, RowSplits, read_data
from torchlasso.training.evaluation import evaluate

ROWS, HELD = 10_000, 2_000
FILES = {
    "digits": None,
    "mnist": "mnist-train.parquet",
    "isolet": "isolet/isolet-train.parquet",
    "coil20": "coil20/coil20.npz",
    "r8": "r8/r8-train.parquet",
    "cifar10": "cifar10/cifar10-train.parquet",
}
GIVEN = {"r8": {"max_length": 32}}  # options besides
# (data, network, epochs): 100 to 1,650 steps
LENGTHS = [("digits", "lenet-5", 10), ("digits", "lenet-5", 40)]
LENGTHS += [("digits", "mlp", epochs) for epochs in (10, 40, 150)]
LENGTHS += [("mnist", "lenet-300-100", epochs) for epochs in (2, 6, 20)]
LENGTHS += [("mnist", "mlp", epochs) for epochs in (2, 6)]
LENGTHS += [("isolet", "mlp", epochs) for epochs in (4, 10, 40)]
LENGTHS += [("coil20", "cnn", 10)]
# 2,000 to 9,420 steps
LENGTHS += [("digits", "lenet-5", 200), ("digits", "mlp", 600), ("mnist", "lenet-300-100", 60)]
LENGTHS += [("mnist", "lenet-5", 20), ("isolet", "mlp", 150)]
# other kinds of networks
LENGTHS += [("r8", "transformer:dim=64", 6), ("r8", "text-cnn:dim=64,filters=50", 6)]
LENGTHS += [("cifar10", "resnet-20:width=8", 6)]
ZEROS = (0.9, 0.97)
# (data, network, epochs, share of the FLOPs)
UNITS = [("digits", "cnn", 40, 0.3), ("mnist", "cnn", 4, 0.3), ("coil20", "cnn", 10, 0.3), ("isolet", "mlp", 10, 0.2)]


def by_density(target: dict[str, Any]) -> float:
    """Return the λ that was best in trainings of 20 epochs at 90 to 99.5 % zeros, as a power of the density."""
    density = 1 - target["sparsity"] if "sparsity" in target else target["flops"]
    return 0.0225 * (0.1 / density) ** 0.59


LATENT: dict[str, Any] = {"recipe": "latent"}
ONE_LAM = "one λ for all tensors"  # also for those whose weights start large
CANDIDATES: dict[str, dict[str, Any]] = {
    "proximal": {"recipe": "proximal"},
    "proximal, 3e-3": {"recipe": "proximal", "lr": 3e-3},
    "latent": LATENT,
    "rate 1e-2": {**LATENT, "lr": 1e-2},
    "rate 3e-3": {**LATENT, "lr": 3e-3},
    "rate 3e-3, λ by density": {**LATENT, "lr": 3e-3, "lam": by_density},
    "rate 1e-2, λ 0.02": {**LATENT, "lr": 1e-2, "lam": 0.02},
    "rate 1e-2, λ by density": {**LATENT, "lr": 1e-2, "lam": by_density},
    "λ by density": {**LATENT, "lam": by_density},
    "λ by density, at least 0.05": {**LATENT, "lam": lambda target: max(0.05, by_density(target))},
    "λ 0.1": {**LATENT, "lam": 0.1},
    "not reweighted": {**LATENT, "reweight": 0.0},
    "hold 0.4": {**LATENT, "hold": 0.4},
    "dropout 0.1": {**LATENT, "input_dropout": 0.1},
    ONE_LAM: LATENT,
}


class Case(NamedTuple):
    data: str
    model: str
    epochs: int
    target: dict[str, Any]


class Reader:
    """The rows of the last data set and seed that were asked for."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.known: tuple[tuple[str, int], InputSpec, RowSplits] | None = None

    def source(self, name: str) -> str | None:
        file = FILES[name]
        if file is None:
            return name
        path = self.folder and self.folder / file
        return str(path) if path and path.exists() else None

    def rows(self, options: Options, key: tuple[str, int]) -> tuple[InputSpec, RowSplits]:
        if self.known is None or self.known[0] != key:
            self.known = None
            inputs, rows = read_data(options)
            train, held = ((x[:n], y[:n]) for (x, y), n in ((rows.train, ROWS), (rows.validation, HELD)))
            self.known = key, inputs, replace(rows, train=train, validation=held)
        return self.known[1], self.known[2]


def cases(shares: Sequence[float]) -> Iterator[Case]:
    for data, model, epochs in LENGTHS:
        for zeros in shares:
            yield Case(data, model, epochs, {"sparsity": zeros})
    for data, model, epochs, share in UNITS:
        yield Case(data, model, epochs, {"flops": share, "over": "units"})


def run(case: Case, name: str, seed: int, reader: Reader) -> float:
    """Train once, and return the error on the validation rows."""
    candidate = CANDIDATES[name]
    given = {"data": reader.source(case.data), "model": case.model, "epochs": case.epochs, "seed": seed}
    given |= GIVEN.get(case.data, {})
    chosen = {name: value(case.target) if callable(value) else value for name, value in candidate.items()}
    options = Options(**completed({**nothing_given(), **given, **case.target, **chosen}))
    inputs, rows = reader.rows(options, (case.data, seed))
    experiment = Experiment(options, inputs)
    model = experiment.build_model()
    with mock.patch.object(steering, "scale_tensors_") if name == ONE_LAM else nullcontext():
        trainer = experiment.trainer(model, rows.train).trainer
    try:
        for _ in range(case.epochs):
            trainer.run_epoch()
    except FloatingPointError:
        return 1.0
    return evaluate(model, experiment.loss, *rows.validation).error or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="with the data sets, besides digits")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--epochs", type=int, nargs="+", help="only the cases with so many")
    parser.add_argument("--data", nargs="+", choices=FILES, default=list(FILES), metavar="DATA", help="only these")
    parser.add_argument("--zeros", nargs="+", type=float, default=ZEROS, help="shares of zeros that are wanted")
    parser.add_argument("--candidates", nargs="+", choices=CANDIDATES, default=list(CANDIDATES), metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recipes.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(1)
    reader, names = Reader(args.folder), args.candidates
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    known = {entry["run"]: entry["error"] for entry in map(json.loads, lines)}

    def error(case: Case, name: str, seed: int) -> float:
        key = json.dumps([*case, name, seed], ensure_ascii=False)
        if key not in known:
            known[key] = run(case, name, seed, reader)
            with args.out.open("a") as file:
                file.write(json.dumps({"run": key, "error": known[key]}, ensure_ascii=False) + "\n")
        return known[key]

    print("| |", " | ".join(names), "|")
    print("|---|" + "---|" * len(names))
    table = []
    for case in cases(args.zeros):
        if case.data not in args.data or reader.source(case.data) is None:
            continue
        if case.epochs not in (args.epochs or [case.epochs]):
            continue
        found = {(seed, name): error(case, name, seed) for seed in args.seeds for name in names}
        table.append([100 * mean(found[seed, name] for seed in args.seeds) for name in names])
        (what, share), *_ = case.target.items()
        head = f"{case.data}, {case.model}, {case.epochs} epochs, {100 * share:g} % {'zeros' * (what == 'sparsity')}"
        print("|", head + "of the FLOPs" * (what == "flops"), "|", *(f"{cell:.2f} |" for cell in table[-1]), flush=True)
    ranks = [[1 + sum(other < cell for other in row) for cell in row] for row in table]
    for label, rows in (("mean", table), ("mean rank", ranks)):
        print("|", label, "|", *(f"{mean(column):.2f} |" for column in zip(*rows, strict=True)))


if __name__ == "__main__":
    main()
