"""Hostile and damaged files against the command line: no traceback, no code that runs, no model that changes unseen.

Every case is a copy of a good file, changed at random (bits, cuts, splices, values of JSON of other types, hostile
names), and a command that reads it, run in a process of its own with little memory and time. The case with number i
follows from the seed and i alone, so that a failure can be run again: ``--start i --count 1``.

    python benchmarks/fuzz.py --count 5000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.backends.backend_svg
import matplotlib.figure  # noqa: F401
import torch
from fuzz_changes import CANARY, mutate
from fuzz_corpus import Target, make_corpus
from fuzz_forks import Ended, run_forked

from torchlasso._core.text import one_line
from torchlasso.cli.main import main as command_line
from torchlasso.runs.page import writing
from torchlasso.storage import read

LONGEST = 400  # characters of an error


def _command(words: tuple[str, ...]) -> None:
    sections = writing.sections
    if "--html" not in words:  # the other commands draw a page by the way
        head = min(sections().items())
        writing.sections = lambda: dict([head])
    try:
        command_line(list(words))
    finally:
        writing.sections = sections


def _read(path: Path) -> None:
    """Print the tensors of a file to the last bit."""
    try:
        tensors = read(path)
    except (MemoryError, ValueError) as error:
        print(one_line(f"error: {error}", LONGEST - 1), file=sys.stderr)
        raise SystemExit(2) from None
    print({name: (str(w.dtype), w.shape, w.view(torch.uint8).tolist()) for name, w in tensors.items()})


def fault(ended: Ended, canary: Path, expected: str | None) -> str:
    """Return a word for the fault in the end of a case; an empty one if there is none."""
    if canary.exists():
        canary.unlink()
        return "code was run"
    if ended.code is None:
        return "it takes too long"
    if "Traceback" in ended.err or ended.code not in (0, 2):
        return f"a traceback, or exit code {ended.code}"
    if any(not c.isprintable() and c != "\n" for c in ended.out + ended.err):
        return "control characters on the screen"
    if ended.code == 2:
        one = ended.err.startswith("error: ") and ended.err.count("\n") == 1 and len(ended.err) <= LONGEST
        return "" if one else "not one line"
    return "" if expected is None or ended.out == expected else "a changed model"


@contextlib.contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def corpus_in(folder: Path) -> list[Target]:
    """Make the good files in a folder."""

    def run(words: tuple[str, ...]) -> None:
        """Run a command in this process, so that every forked process has its imports."""
        try:
            with _in_folder(folder), contextlib.redirect_stdout(io.StringIO()):
                _command(words)
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"the corpus cannot be made: {words}") from None

    return make_corpus(folder, run)


@dataclass(frozen=True)
class Case:
    """A finished case: its number, the file, the command, its end, and the fault."""

    number: int
    file: Path
    words: tuple[str, ...]
    ended: Ended
    fault: str


def cases(corpus: Path, targets: list[Target], seed: int, numbers: range) -> Iterator[Case]:
    """Run the cases with these numbers, each on a copy of the corpus."""
    contents = [(corpus / target.file).read_bytes() for target in targets]
    expected: dict[tuple[Path, tuple[str, ...]], str] = {}
    canary = corpus.parent / "canary"
    module = f"open({str(canary)!r}, 'w').close()\ndef run(*a, **k): pass\n"
    with tempfile.TemporaryDirectory() as place:
        work = Path(place) / "work"

        def run(target: Target, words: tuple[str, ...], content: bytes) -> Ended:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(corpus, work)
            for folder in (work, work / "run"):
                (folder / f"{CANARY}.py").write_text(module)
            (work / target.file).write_bytes(content)
            action = (lambda: _command(words)) if words else (lambda: _read(target.file))
            return run_forked(action, work)

        for number in numbers:
            rng = random.Random(f"{seed} {number}")
            k = rng.randrange(len(targets))
            target = targets[k]
            words = rng.choice(target.commands) if target.commands else ()
            if target.model and (target.file, words) not in expected:
                whole = run(target, words, contents[k])
                if whole.code:
                    raise RuntimeError(f"{target.file} cannot be read as it is: {whole.err}")
                expected[target.file, words] = whole.out
            ended = run(target, words, mutate(contents[k], rng, contents))
            yield Case(number, target.file, words, ended, fault(ended, canary, expected.get((target.file, words))))


def main() -> None:
    """Run the cases, count their ends, and print the faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="cases (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="the first one's number (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process with threads is not to be forked
    counts, faults = Counter[tuple[str, str]](), 0
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        corpus.mkdir()
        targets = corpus_in(corpus)
        with contextlib.suppress(KeyboardInterrupt):  # the results so far are shown
            for case in cases(corpus, targets, options.seed, range(options.start, options.start + options.count)):
                outcome = case.fault or ("refused" if case.ended.code else "read")
                counts[case.file.as_posix(), outcome] += 1
                if case.fault:
                    faults += 1
                    print(
                        f"{case.number}: {case.fault}: {case.file}, {' '.join(case.words)}\n{case.ended.err[-2000:]}",
                        flush=True,
                    )
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:40} {outcome:40} {count:6}")
    print(f"{sum(counts.values())} cases, {faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
