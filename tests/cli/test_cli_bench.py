"""``torchlasso bench``: the measurements are complete and consistent; their values are not tested."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from torchlasso.cli.bench import Measured, _speed
from torchlasso.runs import variants as forms
from torchlasso.runs.measuring import latencies, peak_memory

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_registry")]

FORMS = ["dense", "penalised", "compact", "accelerated", "dense, bfloat16", "dense, onnx", "compact, onnx"]
BACKENDS = ["compact, inductor", "compact, int8"]


def test_all_forms_are_measured_and_kept(cli: Any, copied: Callable[[str], Path], classes: Path) -> None:
    run = copied("classes")
    threads = torch.get_num_threads()
    ended = cli(
        "bench", run, "--batch", "3,1", "--threads", "1", "--seconds", "0.01", "--backends", "folded,inductor,int8"
    )
    assert (ended.code, ended.err) == (0, "")
    assert torch.get_num_threads() == threads
    record = json.loads((run / "bench.json").read_text())
    assert record["threads"] == 1
    assert record["missing"] == []
    assert [(each["batch"], each["name"]) for each in record["variants"]] == [
        (b, n) for b in (1, 3) for n in FORMS + BACKENDS
    ]
    lines = ended.out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    for each in record["variants"]:
        assert each["median_ms"] > 0 <= each["spread_ms"]
        assert each["rows_per_second"] == pytest.approx(1e3 * each["batch"] / each["median_ms"])
        assert sum(line.startswith(f"{each['name']}  ") for line in lines) == 2
    by_name = {each["name"]: each for each in record["variants"]}
    summary = cli.summary(run)
    assert by_name["penalised"]["error"] == pytest.approx(summary["error"])
    assert by_name["dense"]["error"] == pytest.approx(summary["dense"]["error"])
    for same in ("compact", "accelerated", "compact, onnx"):
        assert by_name[same]["error"] == pytest.approx(summary["error"])
        assert by_name[same]["loss"] == pytest.approx(summary["loss"], rel=1e-4)
    assert by_name["compact, inductor"]["loss"] == pytest.approx(summary["loss"], rel=1e-4)
    assert by_name["compact, int8"]["loss"] == pytest.approx(summary["loss"], rel=0.1)
    assert by_name["compact, int8"]["file_bytes"] is by_name["compact, inductor"]["peak_memory"] is None
    assert by_name["dense, bfloat16"]["file_bytes"] < by_name["dense"]["file_bytes"]


def test_a_regression_without_a_dense_run_as_json(
    cli: Any, copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without ONNX files, of which the reason is kept."""

    def cannot(*_: object, **__: object) -> None:
        raise RuntimeError("no onnxruntime\nhere")

    monkeypatch.setattr(forms, "to_onnx", cannot)
    run = copied("amounts")
    ended = cli("bench", run, "--batch", "2", "--seconds", "0.01", "--json", "--backends", "none")
    assert ended.code == 0
    record = json.loads((run / "bench.json").read_text())
    assert json.loads(ended.out) == record
    assert record["missing"] == ["dense, onnx: no onnxruntime", "compact, onnx: no onnxruntime"]
    by_name = {each["name"]: each for each in record["variants"]}
    assert list(by_name) == FORMS[:-2]
    assert by_name["dense"]["loss"] is None  # it was not trained
    assert by_name["penalised"]["error"] is None
    assert by_name["penalised"]["loss"] == pytest.approx(cli.summary(run)["loss"])


def test_bad_input(cli: Any, copied: Callable[[str], Path], tmp_path: Path) -> None:
    run = copied("classes")
    cli.assert_refused(cli("bench", run, "--batch", "1,many"), "--batch", "'1,many'")
    cli.assert_refused(cli("bench", run, "--batch", "0"), "--batch", "above 0")
    cli.assert_refused(cli("bench", run, "--seconds", "0"), "--seconds must be above 0")
    cli.assert_refused(cli("bench", run, "--backends", "int8,tpu"), "--backends must be all, none", "'int8,tpu'")
    for threads in ("0", "100000000"):  # with this many threads, OpenMP ends the process
        cli.assert_refused(cli("bench", run, "--threads", threads), "--threads must be from 1 to 1,024", threads)
    cli.assert_refused(cli("bench", tmp_path), "holds no run")
    assert not (run / "bench.json").exists()


def test_measurements_are_shown_where_no_file_can_be_written(cli: Any, copied: Callable[[str], Path]) -> None:
    run = copied("classes")
    (run / "bench.json").mkdir()
    ended = cli("bench", run, "--batch", "1", "--seconds", "0.001", "--backends", "none", "--json")
    assert ended.code == 2
    assert "bench.json" in ended.err
    assert {each["name"] for each in json.loads(ended.out)["variants"]} >= {"dense", "penalised", "compact"}


def test_models_run_in_turns_on_their_own_inputs() -> None:
    calls = []

    class Noted(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append((self.name, self.training, len(x)))
            return x

    found = latencies({name: Noted(name) for name in "ab"}, {"a": torch.ones(1), "b": torch.ones(2)}, seconds=1e-9)
    rounds = [set(calls[k : k + 2]) for k in range(0, len(calls), 2)]
    assert rounds == 16 * [{("a", False, 1), ("b", False, 2)}]  # once to warm up
    assert set(found) == {"a", "b"}
    assert all(each.median > 0 <= each.spread for each in found.values())


def test_memory_is_the_size_of_the_largest_values() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.expand(100_000_000).add(1.0).sum()  # 400 MB for a moment

    found = peak_memory(Large, torch.ones(1))
    assert found is None or found == pytest.approx(400e6, rel=0.1)


def test_a_difference_inside_the_noise_is_no_gain() -> None:
    dense, near, far = (Measured("a", 1, ms, 0.4, 1.0, None, None, None, None) for ms in (2.0, 1.7, 1.5))
    assert [_speed(dense, each) for each in (dense, near, far)] == ["1.00×", "≈ 1×", "1.33×"]
