"""LeNet-300-100 on MNIST at a fixed λ: exact zeros and test error, beside the dense network and the plain loss term.

Runs ``torchlasso train`` with the options below for the seeds 0, 1 and 2 and prints a table with the medians.

    python benchmarks/lenet.py --data FOLDER_WITH_MNIST
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

OPTIONS = {
    "--model": "lenet-300-100",
    "--penalty": "l1",
    "--lam": "1e-4",
    "--optimizer": "adam",
    "--lr": "1e-3",
    "--schedule": "cosine",
    "--epochs": "20",
    "--batch-size": "128",
    "--validation": "0",
    "--compare": "dense,loss-term",
}
SEEDS = (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--out", default="runs/lenet", help="folder for the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--epochs", default=OPTIONS["--epochs"])
    arguments = parser.parse_args()
    options = [word for pair in {**OPTIONS, "--epochs": arguments.epochs}.items() for word in pair]
    print("torchlasso train --data MNIST", *options, flush=True)
    rows = []
    for seed in arguments.seeds:
        out = Path(arguments.out) / f"seed-{seed}"
        command = [sys.executable, "-m", "torchlasso.cli.main", "train", "--data", arguments.data, *options]
        command += ["--seed", str(seed), "--out", str(out), "--overwrite"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((out / "summary.json").read_text())
        rows.append([summary, summary["dense"], summary["loss_term"]])
        print_row(f"seed {seed}", *rows[-1])
    zeros = [run[0]["sparsity"] for run in rows]
    medians = [{key: statistics.median(run[i][key] for run in rows) for key in ("error", "sparsity")} for i in range(3)]
    print_row("median", *medians)
    print(f"spread of the sparsity over the seeds: ±{50 * (max(zeros) - min(zeros)):.2f} points")


def print_row(name: str, ours: dict, dense: dict, term: dict) -> None:
    cells = [
        f"torchlasso {100 * ours['sparsity']:.2f} % zeros, {100 * ours['error']:.2f} % error",
        f"dense {100 * dense['error']:.2f} %",
        f"loss term {100 * term['sparsity']:.2f} % zeros, {100 * term['error']:.2f} %",
    ]
    print(f"{name:<8}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
