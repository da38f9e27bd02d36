"""From a run to a fast model, by the commands alone: train to a share of the FLOPs, compact, bench. MNIST.

The network is trained dense, and by ProxAdam with a group penalty on its units and λ steered to a share of the FLOPs,
taught by the dense one and trained on without a penalty at the end; both for as many epochs. What is compared is the
throughput of the forms of the result at batch 64 with that of the dense network, and test errors.

Networks: the zoo's ``cnn``, and a VGG with batch norm (benchmarks/networks.py).

    python benchmarks/end_to_end.py --data FOLDER_WITH_MNIST --model cnn --flops 0.055
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

MODELS = {"cnn": "cnn", "vgg": "networks:vgg"}
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with MNIST's train and test files")
    parser.add_argument("--model", choices=MODELS, default="cnn")
    parser.add_argument("--flops", default="0.1", help="share to end with")
    parser.add_argument("--epochs", default="10")
    parser.add_argument("--refit", default="5", help="epochs without a penalty")
    parser.add_argument("--lam", default="1e-3", help="where the search for λ begins")
    parser.add_argument("--dense", help="folder of a finished dense run, to be the teacher instead of a new one")
    parser.add_argument("--lr", default="1e-3")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--out", help="folder of the run; without it a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(arguments.out or temporary) / f"{arguments.model}-{arguments.flops}-{arguments.seed}"
        train = ["train", "--data", arguments.data, "--model", MODELS[arguments.model], "--out", str(run)]
        train += ["--flops", arguments.flops, "--over", "units", "--lam", arguments.lam, "--epochs", arguments.epochs]
        train += ["--shrink", "--teacher", arguments.dense or "dense", "--refit", arguments.refit]
        train += ["--lr", arguments.lr, "--seed", arguments.seed]
        dense = Path(arguments.dense) if arguments.dense else run / "dense"
        commands = [
            [*train, "--resume"] if run.exists() else train,
            ["compact", str(run)],
            ["bench", str(run), "--threads", arguments.threads],
        ]
        for command in commands:
            call(command, arguments.threads)
        show(arguments, *(read(file) for file in (run / "summary.json", dense / "summary.json", run / "bench.json")))


def call(command: list[str], threads: str) -> None:
    print("torchlasso", *command, flush=True)
    paths = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-m", "torchlasso", *command], env=environment, check=True)


def read(file: Path) -> dict:
    return json.loads(file.read_text())


def show(arguments: argparse.Namespace, summary: dict, dense: dict, bench: dict) -> None:
    largest = max(each["batch"] for each in bench["variants"])
    forms = {each["name"]: each for each in bench["variants"] if each["batch"] == largest}
    errors = 100 * summary["error"], 100 * dense["error"]
    print(f"\n{arguments.model}, seed {arguments.seed}: error {errors[0]:.2f} %, dense {errors[1]:.2f} %; ", end="")
    shares = [
        f"{name} {form['rows_per_second'] / forms['dense']['rows_per_second']:.2f}" for name, form in forms.items()
    ]
    print(f"throughput at batch {largest} to that of dense: {', '.join(shares[1:])}")


if __name__ == "__main__":
    main()
