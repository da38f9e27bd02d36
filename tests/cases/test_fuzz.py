"""Some of the cases that ``benchmarks/fuzz.py`` runs by the thousand."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

COUNT, SEED = 40, 675  # with this seed, so many cases leave no file out
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def fuzz() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return __import__("fuzz")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the cases are run in processes that are forked")
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_damaged_files_are_refused_in_one_line_and_change_nothing(fuzz: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    # of each file the command that reads it soonest, and none that draws pages, which take seconds
    quick = (replace(target, commands=target.commands[:1]) for target in fuzz.corpus_in(corpus))
    targets = [target for target in quick if not any("--html" in words for words in target.commands)]
    found = list(fuzz.cases(corpus, targets, seed=SEED, numbers=range(COUNT)))
    assert not [(case.number, case.fault, case.file, case.words, case.ended.err) for case in found if case.fault]
    assert {case.file for case in found} == {target.file for target in targets}  # none is left out
    outcomes = [case.ended.code for case in found]
    assert outcomes.count(2) > COUNT / 4
    assert outcomes.count(0) > COUNT / 20
