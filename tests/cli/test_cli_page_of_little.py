"""The page of a run: measurements of any content, and models that cannot be read or run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.pages import Page, page_of
from torchlasso.runs.page import writing
from torchlasso.runs.page.benched import benched_section
from torchlasso.runs.page.won import won_section

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_pages")]

MODELS = """
from torch import nn


class Undecided(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first, self.second = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.first(x) if float(x.sum()) > 0 else self.second(x)


def undecided(input_shape, outputs):
    return Undecided(input_shape[0], outputs)


class Fussy(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.head = nn.Linear(inputs, outputs)

    def forward(self, x):
        if len(x) < 3:
            raise RuntimeError("too few rows for me")
        return self.head(x)


def fussy(input_shape, outputs):
    return Fussy(input_shape[0], outputs)
"""


BENCH = {
    "device": "cpu",
    "threads": 2,
    "variants": [
        {"name": name, "batch": batch, "median_ms": 0.5 * batch, "spread_ms": 0.1, "rows_per_second": 2000.0}
        | {"peak_memory": None, "file_bytes": 1500, "error": 0.1 if name == "dense" else None, "loss": 0.25}
        for name in ("dense", "compact")
        for batch in (1, 64)
    ],
    "missing": ["onnx: it needs onnxruntime"],
}


@pytest.fixture
def only_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages with the headline and the measurements alone, since all the figures take longer to draw."""
    monkeypatch.setattr(writing, "sections", lambda: {0: won_section, 1: benched_section})


@pytest.mark.usefixtures("only_measurements")
def test_measurements_are_a_table(drawn_again: Callable[..., Page]) -> None:
    page = drawn_again("classes", lambda run: (run / "bench.json").write_text(json.dumps(BENCH)))
    text = page.text[page.text.index("Speed and size") :]
    assert re.search(r"batch 1batch 64rows/sfiletest errortest loss", text)
    assert re.search(r"dense0.500 ± 0.05032.0 ± 0.12,0001.5 kB10.00 %0.2500", text)
    assert re.search(r"compact0.500 ± 0.05032.0 ± 0.12,0001.5 kB–0.2500", text)
    assert "on cpu with 2 threads." in text
    assert "Not measured: onnx: it needs onnxruntime." in text


OTHER: dict[str, Any] = {
    "a list": [1],
    "nothing": {},
    "no variants": {"variants": None},
    "empty": {"variants": []},
    "variants of text": {"variants": ["dense", {"batch": 1}]},
}


@pytest.mark.usefixtures("only_measurements")
@pytest.mark.parametrize("content", OTHER.values(), ids=OTHER)
def test_invalid_measurements_are_left_out(drawn_again: Callable[..., Page], content: Any) -> None:
    page = drawn_again("amounts", lambda run: (run / "bench.json").write_text(json.dumps(content)))
    assert "Speed and size" not in page.headings


@pytest.mark.usefixtures("only_measurements")
def test_measurements_may_lack_anything(drawn_again: Callable[..., Page]) -> None:
    record = {"variants": [{"name": "dense"}, {"name": "compact", "batch": 8, "median_ms": "fast", "loss": 1}]}
    page = drawn_again("amounts", lambda run: (run / "bench.json").write_text(json.dumps(record)))
    text = page.text[page.text.index("Speed and size") :]
    assert re.search(r"batch 8test loss\s*dense––\s*compact–1.0000", text)


def test_models_that_cannot_be_read_or_run_on_their_own_have_a_page_all_the_same(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models_with_a_will.py").write_text(MODELS)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for name in ("undecided", "fussy"):
        run = tmp_path / name
        assert cli.train(classes, run, "--model", f"models_with_a_will:{name}", "--epochs", "1").code == 0
        page = page_of(run)
        assert "They are not known: " in page.text
        assert ("live FLOPs" in page.text) == (name == "undecided")
    sys.modules.pop("models_with_a_will")


@pytest.mark.parametrize(("hold", "said"), [("0.4", "In the last 40 % of the steps"), ("0", "More epochs")])
def test_the_certificate_explains_a_distance_that_is_not_small_or_that_there_is_none(
    cli: Any, classes: Path, tmp_path: Path, hold: str, said: str
) -> None:
    assert cli.train(classes, tmp_path / "run", "--epochs", "1", "--hold", hold).code == 0
    assert said in " ".join((tmp_path / "run" / "report.html").read_text().split())
