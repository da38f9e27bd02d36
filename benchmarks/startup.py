"""The start of commands: the time of processors of help, completion and the report of a run, beside `import torch`.

Each is a process of its own; all take turns, in rounds, and the medians are given, with `python -c pass` for what any
program of Python takes. Three runs are trained first on the handwritten digits, and reported: with zeros of single
weights (`plain`), with a group lasso of units (`units`), and with a budget of FLOPs (`flops`).

    python benchmarks/startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TRAIN = ("--data", "digits", "--model", "lenet-5")
RUNS = {
    "plain": ("--sparsity", "0.9"),
    "units": ("--lam", "0.01", "--over", "units"),
    "flops": ("--flops", "0.5"),
}
COMPLETION = {"_TORCHLASSO_COMPLETE": "complete_bash", "COMP_WORDS": "torchlasso train --spa", "COMP_CWORD": "2"}
TORCH = "import torch"
PROGRAM = "import sys; sys.argv = {arguments}; from torchlasso.cli.main import main; main()"


def seconds_of(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Run Python in a process; return its time of processors, that of its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], check=True, env=os.environ | (environment or {}), stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def command(*arguments: str) -> list[str]:
    """Return the arguments of Python that run a command, as the script of that name does."""
    return ["-c", PROGRAM.format(arguments=["torchlasso", *arguments])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="of the runs that are reported")
    parser.add_argument("--runs", nargs="*", choices=list(RUNS), default=list(RUNS))
    options = parser.parse_args()
    started: dict[str, list[str]] = {
        "python -c pass": ["-c", "pass"],
        TORCH: ["-c", TORCH],
        "torchlasso --help": command("--help"),
        "torchlasso train --help": command("train", "--help"),
        "completion of torchlasso train --spa": command(),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in options.runs:
            run = str(Path(folder) / name)
            training = ("train", *TRAIN, *RUNS[name], "--epochs", str(options.epochs), "--out", run)
            seconds_of(command(*training))
            started[f"torchlasso report, {name}"] = command("report", run)
        found: dict[str, list[float]] = {name: [] for name in started}
        for _ in range(options.rounds):
            for name, arguments in started.items():
                found[name].append(seconds_of(arguments, COMPLETION if name.startswith("completion") else None))
    middle = {name: statistics.median(each) for name, each in found.items()}
    for name, value in middle.items():
        beyond = f"  {value - middle[TORCH]:5.2f} beyond it" if "report" in name else ""
        print(f"{name:38} {value:5.2f} s  {value / middle[TORCH]:5.2f} times {TORCH}{beyond}")


if __name__ == "__main__":
    main()
