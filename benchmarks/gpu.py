"""Everything that needs a GPU, in ten minutes at most: the tests of tests/gpu and the benchmarks that a GPU changes.

Each part runs in a process of its own with a limit of its own; one that fails or runs out of time does not end the
others. What a part prints goes to a file in --out, and a table of all parts comes at the end, also in Markdown.

    python benchmarks/gpu.py --out gpu-results
    python benchmarks/gpu.py --out gpu-results --rehearse    # on a CPU, with small cases: does every part start?

The exit code is 1 if a part failed or ran out of time. A rehearsal leaves out the parts that a CPU cannot run, and says
so; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

BENCHMARKS = Path(__file__).parent
MINUTES = 10


@dataclass(frozen=True)
class Part:
    """A command, and the most seconds that it may take.

    Attributes:
        name: the name of its file.
        command: after the interpreter.
        rehearsal: the same on a CPU; () where a CPU cannot run it.
        limit: in seconds.
    """

    name: str
    command: tuple[str, ...]
    rehearsal: tuple[str, ...]
    limit: int


PARTS = (
    Part("tests", ("-m", "pytest", "-q", "tests/gpu"), ("-m", "pytest", "-q", "tests/gpu"), 150),
    Part(
        "step",
        ("benchmarks/step.py", "--device", "cuda", "--cases", "abc", "--rounds", "15"),
        ("benchmarks/step.py", "--small", "--cases", "a", "--rounds", "1"),
        180,
    ),
    Part(
        "step-growth",
        ("benchmarks/step.py", "--device", "cuda", "--growth", "--rounds", "7"),
        ("benchmarks/step.py", "--small", "--growth", "--rounds", "1"),
        120,
    ),
    Part("two-of-four", ("benchmarks/inference.py", "two-of-four"), (), 120),
)


@dataclass(frozen=True)
class Ended:
    """A part that ended: its seconds, and how it ended."""

    part: Part
    seconds: float
    how: str


def run(part: Part, command: Sequence[str], folder: Path, limit: float) -> Ended:
    """Run a part in the root of the repository, and keep what it prints."""
    start = time.perf_counter()
    with (folder / f"{part.name}.txt").open("w", encoding="utf-8") as file:
        try:
            done = subprocess.run(
                [sys.executable, *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=BENCHMARKS.parent,
                timeout=limit,
                check=False,
            )
            how = "done" if done.returncode == 0 else f"failed with exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {limit:.0f} s"
    return Ended(part, time.perf_counter() - start, how)


def last_line(path: Path) -> str:
    """Return the last line that a part printed."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def table_of(ended: Sequence[Ended], left_out: Sequence[Part], folder: Path) -> str:
    """Return the table of all parts, in Markdown."""
    rows = [
        f"| {each.part.name} | {each.how} | {each.seconds:.0f} | {last_line(folder / f'{each.part.name}.txt')[:80]} |"
        for each in ended
    ]
    rows += [f"| {part.name} | left out: it needs a GPU | | |" for part in left_out]
    return "\n".join(["| part | | seconds | last line |", "|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--rehearse", action="store_true", help="on a CPU, with small cases")
    arguments = parser.parse_args()
    if not arguments.rehearse and not torch.cuda.is_available():
        parser.error("there is no GPU here; to try the script without one: --rehearse")
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU: a rehearsal", flush=True)
    until, ended = time.perf_counter() + 60 * MINUTES, list[Ended]()
    known = [(part, part.rehearsal if arguments.rehearse else part.command) for part in PARTS]
    for part, command in known:
        if command:
            print(f"{part.name} …", flush=True)
            ended.append(run(part, command, arguments.out, min(part.limit, max(1.0, until - time.perf_counter()))))
    table = table_of(ended, [part for part, command in known if not command], arguments.out)
    (arguments.out / "table.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    sys.exit(any(each.how != "done" for each in ended))


if __name__ == "__main__":
    main()
