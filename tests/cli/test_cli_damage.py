"""Damaged files of a run are named in one line, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from torchlasso.storage import checkpoint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint(cli: Any, stopped: Path, share: float) -> None:
    file = stopped / "checkpoint" / "state.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    before = cli.contents(stopped)
    cli.assert_refused(cli.resume(stopped), "state.safetensors")
    assert cli.contents(stopped) == before


def _state(stopped: Path) -> dict[str, Any]:
    return checkpoint.load_state(stopped / "checkpoint" / "state.safetensors")  # type: ignore[no-any-return]


ALTERED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another thing": lambda state: [1, 2, 3],
    "no model": lambda state: {k: v for k, v in state.items() if k != "model"},
    "no epoch": lambda state: {k: v for k, v in state.items() if k != "epoch"},
    "no weight": lambda state: state | {"model": {k: v for k, v in state["model"].items() if k != "head.weight"}},
    "another shape": lambda state: state | {"model": state["model"] | {"head.weight": torch.zeros(3, 9)}},
    "no groups": lambda state: state | {"optimizer": {"state": {}, "param_groups": []}},
    "optimizer of text": lambda state: state | {"optimizer": "adam"},
    "epoch of text": lambda state: state | {"epoch": "two"},
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_an_altered_checkpoint(cli: Any, stopped: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint.save_state(stopped / "checkpoint" / "state.safetensors", change(_state(stopped)))
    before = cli.contents(stopped)
    cli.assert_refused(cli.resume(stopped), "state.safetensors")
    assert cli.contents(stopped) == before


def test_a_checkpoint_with_a_flipped_bit(cli: Any, stopped: Path) -> None:
    file = stopped / "checkpoint" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x10  # in a tensor
    file.write_bytes(content)
    cli.assert_refused(cli.resume(stopped), "state.safetensors")


def test_a_checkpoint_that_is_another_safetensors_file(cli: Any, stopped: Path) -> None:
    save_file({"w": torch.zeros(2)}, stopped / "checkpoint" / "state.safetensors")
    cli.assert_refused(cli.resume(stopped), "state.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_truncated_model(cli: Any, copied: Callable[..., Path], classes: Path, command: str, share: float) -> None:
    run = copied()
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    more = ["--data", classes] if command == "predict" else []
    cli.assert_refused(cli(command, run, *more), "model.safetensors")


@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_model_that_does_not_fit(cli: Any, copied: Callable[..., Path], classes: Path, command: str) -> None:
    run = copied()
    weights = load_file(run / "model.safetensors")
    more = ["--data", classes] if command == "predict" else []
    for other in (weights | {"head.weight": torch.zeros(3, 9)}, {k: w for k, w in weights.items() if "fc1" in k}):
        save_file(other, run / "model.safetensors")
        cli.assert_refused(cli(command, run, *more), "model.safetensors")


def edited(*path: str, to: Any) -> Callable[[str], str]:
    """JSON in which one entry is another, or is missing."""

    def edit(text: str) -> str:
        content = json.loads(text)
        place = content
        for key in path[:-1]:
            place = place[key]
        if to is None:
            del place[path[-1]]
        else:
            place[path[-1]] = to
        return json.dumps(content)

    return edit


BROKEN: dict[str, Callable[[str], str]] = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: "[]",
    "a number": lambda text: "1",
    "nothing in it": lambda text: "{}",
}
CONFIG = BROKEN | {
    "no options": edited("options", to=None),
    "options of text": edited("options", to="x"),
    "no epochs": edited("options", "epochs", to=None),
    "epochs of text": edited("options", "epochs", to="three"),
    "rate of text": edited("options", "lr", to="fast"),
    "negative strength": edited("options", "lam", to=-1),
    "model of a number": edited("options", "model", to=5),
    "unknown model": edited("options", "model", to="lenet-6"),
    "unknown penalty": edited("options", "penalty", to="l2"),
    "inputs of a list": edited("inputs", to=[]),
    "no standardizer": edited("inputs", "standardizer", to=None),
    "standardizer of a number": edited("inputs", "standardizer", to=1),
    "another shape": edited("inputs", "shape", to=[7]),
    "shape of text": edited("inputs", "shape", to="wide"),
}
READERS = {
    "report": list(CONFIG),
    "predict": [name for name in CONFIG if name != "unknown penalty"],
}  # has no use for it
SUMMARY = BROKEN | {
    "no error": edited("error", to=None),
    "no stationarity": edited("stationarity", to=None),
    "sparsity of text": edited("sparsity", to="much"),
}
SHOWN = {  # the files that each form of the report needs
    "--html": [name for name in SUMMARY if name != "no stationarity"],
    "--json": ["empty", "cut", "a list", "a number"],
    "": list(SUMMARY),
}


@pytest.mark.parametrize(("command", "damage"), [(c, d) for c in READERS for d in READERS[c]])
def test_a_damaged_configuration(
    cli: Any, copied: Callable[..., Path], classes: Path, command: str, damage: str
) -> None:
    change = CONFIG[damage]
    run = copied()
    (run / "config.json").write_text(change((run / "config.json").read_text()))
    more = ["--data", classes] if command == "predict" else []
    cli.assert_refused(cli(command, run, *more))


@pytest.mark.parametrize("damage", [name for name in CONFIG if name != "another shape"])  # read anew from the data
def test_a_damaged_configuration_of_a_run_to_resume(cli: Any, stopped: Path, damage: str) -> None:
    change = CONFIG[damage]
    (stopped / "config.json").write_text(change((stopped / "config.json").read_text()))
    before = cli.contents(stopped)
    cli.assert_refused(cli.resume(stopped))
    assert cli.contents(stopped) == before


@pytest.mark.parametrize(("form", "damage"), [(form, name) for form in SHOWN for name in SHOWN[form]])
def test_a_damaged_summary(cli: Any, copied: Callable[..., Path], form: str, damage: str) -> None:
    run, change = copied(), SUMMARY[damage]
    (run / "summary.json").write_text(change((run / "summary.json").read_text()))
    before = cli.contents(run)
    cli.assert_refused(cli("report", run, *filter(None, [form])), "summary.json")
    assert cli.contents(run) == before


METRICS = {"cut": lambda text: text[:-20], "numbers": lambda text: "1\n2\n", "nothing in it": lambda text: "{}\n"}


@pytest.mark.usefixtures("whole_pages")
@pytest.mark.parametrize("change", METRICS.values(), ids=METRICS)
def test_damaged_metrics(cli: Any, stopped: Path, copied: Callable[..., Path], change: Callable[[str], str]) -> None:
    for run, command in ((copied(), "report"), (stopped, "resume")):
        (run / "metrics.jsonl").write_text(change((run / "metrics.jsonl").read_text()))
        ended = cli("report", run, "--html") if command == "report" else cli.resume(run)
        cli.assert_refused(ended, "metrics.jsonl")


@pytest.mark.usefixtures("whole_pages")
def test_missing_metrics_of_a_finished_run(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    (run / "metrics.jsonl").unlink()
    cli.assert_refused(cli("report", run, "--html"), "metrics.jsonl")


@pytest.mark.parametrize("name", ["model.safetensors", "summary.json"])
def test_a_run_that_is_not_finished(cli: Any, copied: Callable[..., Path], name: str) -> None:
    run = copied()
    (run / name).unlink()
    cli.assert_refused(cli("report", run), str(run))
