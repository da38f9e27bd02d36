"""Damaged files of a run, a full disk, and a training that diverges: one line, and what was good stays."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from torchlasso import checkpoint
from torchlasso.cli.run_folder import RunFolder

FULL = """
import resource, signal, sys
from torchlasso.cli.main import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""


def assert_refused(ended: Any, *names: str) -> None:
    assert ended.code == 2, ended
    assert ended.err.count("\n") == 1, ended.err
    assert ended.err.startswith("error: ")
    for name in names:
        assert name in ended.err, ended.err


@pytest.fixture
def stopped(cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that was interrupted after its second epoch."""
    calls, write = 0, RunFolder.write_checkpoint

    def interrupted(folder: RunFolder, state: dict[str, Any]) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        write(folder, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_checkpoint", interrupted)
        assert cli.train(classes, tmp_path / "stopped").code == 130
    assert checkpoint.load(tmp_path / "stopped" / "checkpoint" / "state.safetensors")["epoch"] == 2
    return tmp_path / "stopped"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_checkpoint(cli: Any, stopped: Path, share: float) -> None:
    file = stopped / "checkpoint" / "state.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    before = cli.contents(stopped)
    assert_refused(cli.resume(stopped), "state.safetensors")
    assert cli.contents(stopped) == before


def _state(stopped: Path) -> dict[str, Any]:
    return checkpoint.load(stopped / "checkpoint" / "state.safetensors")  # type: ignore[no-any-return]


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
    checkpoint.save(stopped / "checkpoint" / "state.safetensors", change(_state(stopped)))
    before = cli.contents(stopped)
    assert_refused(cli.resume(stopped), "state.safetensors")
    assert cli.contents(stopped) == before


def test_a_checkpoint_with_a_flipped_bit(cli: Any, stopped: Path) -> None:
    file = stopped / "checkpoint" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x10  # in a tensor
    file.write_bytes(content)
    assert_refused(cli.resume(stopped), "state.safetensors")


def test_a_checkpoint_that_is_another_safetensors_file(cli: Any, stopped: Path) -> None:
    save_file({"w": torch.zeros(2)}, stopped / "checkpoint" / "state.safetensors")
    assert_refused(cli.resume(stopped), "state.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_truncated_model(cli: Any, copied: Callable[..., Path], classes: Path, command: str, share: float) -> None:
    run = copied()
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    more = ["--data", classes] if command == "predict" else []
    assert_refused(cli(command, run, *more), "model.safetensors")


@pytest.mark.parametrize("command", ["report", "predict"])
def test_a_model_that_does_not_fit(cli: Any, copied: Callable[..., Path], classes: Path, command: str) -> None:
    run = copied()
    weights = load_file(run / "model.safetensors")
    more = ["--data", classes] if command == "predict" else []
    for other in (weights | {"head.weight": torch.zeros(3, 9)}, {k: w for k, w in weights.items() if "fc1" in k}):
        save_file(other, run / "model.safetensors")
        assert_refused(cli(command, run, *more), "model.safetensors")


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
SHOWN = {  # what of it each form of the report needs
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
    assert_refused(cli(command, run, *more))


@pytest.mark.parametrize("damage", [name for name in CONFIG if name != "another shape"])  # read anew from the data
def test_a_damaged_configuration_of_a_run_to_resume(cli: Any, stopped: Path, damage: str) -> None:
    change = CONFIG[damage]
    (stopped / "config.json").write_text(change((stopped / "config.json").read_text()))
    before = cli.contents(stopped)
    assert_refused(cli.resume(stopped))
    assert cli.contents(stopped) == before


@pytest.mark.parametrize(("form", "damage"), [(form, name) for form in SHOWN for name in SHOWN[form]])
def test_a_damaged_summary(cli: Any, copied: Callable[..., Path], form: str, damage: str) -> None:
    run, change = copied(), SUMMARY[damage]
    (run / "summary.json").write_text(change((run / "summary.json").read_text()))
    before = cli.contents(run)
    assert_refused(cli("report", run, *filter(None, [form])), "summary.json")
    assert cli.contents(run) == before


METRICS = {"cut": lambda text: text[:-20], "numbers": lambda text: "1\n2\n", "nothing in it": lambda text: "{}\n"}


@pytest.mark.parametrize("change", METRICS.values(), ids=METRICS)
def test_damaged_metrics(cli: Any, stopped: Path, copied: Callable[..., Path], change: Callable[[str], str]) -> None:
    for run, command in ((copied(), "report"), (stopped, "resume")):
        (run / "metrics.jsonl").write_text(change((run / "metrics.jsonl").read_text()))
        ended = cli("report", run, "--html") if command == "report" else cli.resume(run)
        assert_refused(ended, "metrics.jsonl")


def test_missing_metrics_of_a_finished_run(cli: Any, copied: Callable[..., Path]) -> None:
    run = copied()
    (run / "metrics.jsonl").unlink()
    assert_refused(cli("report", run, "--html"), "metrics.jsonl")


@pytest.mark.parametrize("name", ["model.safetensors", "summary.json"])
def test_a_run_that_is_not_finished(cli: Any, copied: Callable[..., Path], name: str) -> None:
    run = copied()
    (run / name).unlink()
    assert_refused(cli("report", run), str(run))


# A full disk ------------------------------------------------------------------------------------------------------


def assert_readable(run: Path) -> None:
    """Whatever files there are can be read."""
    assert not list(run.rglob("*.part"))
    for file in run.rglob("*.safetensors"):
        assert load_file(file)
    for file in run.rglob("*.json"):
        json.loads(file.read_text())
    for file in run.rglob("metrics.jsonl"):
        assert [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize("limit", [10, 600, 1_500, 3_000])
def test_a_disk_that_is_full_from_the_start(cli: Any, classes: Path, tmp_path: Path, limit: int) -> None:
    """Too full for the configuration, for a checkpoint."""
    with cli.full_disk(limit):
        ended = cli.train(classes, tmp_path / "run")
    assert_refused(ended, str(tmp_path / "run"))
    assert_readable(tmp_path / "run")


def test_a_disk_that_becomes_full_while_training(cli: Any, classes: Path, tmp_path: Path) -> None:
    """The metrics grow beyond what fits; nothing is lost, and with room the run goes on to the same weights."""
    options = ["--epochs", "40"]
    with cli.full_disk(5_500):
        ended = cli.train(classes, tmp_path / "run", *options)
    assert_refused(ended, "metrics.jsonl")
    assert_readable(tmp_path / "run")
    assert 5 < len(cli.metrics(tmp_path / "run")) < 40
    assert cli.resume(tmp_path / "run").code == 0
    assert cli.train(classes, tmp_path / "whole", *options).code == 0
    left, right = cli.contents(tmp_path / "run"), cli.contents(tmp_path / "whole")
    assert left["model.safetensors"] == right["model.safetensors"]
    assert cli.metrics(tmp_path / "run", timed=False) == cli.metrics(tmp_path / "whole", timed=False)


def test_a_disk_that_is_full_on_resuming(cli: Any, stopped: Path) -> None:
    before = cli.contents(stopped)
    with cli.full_disk(2_000):
        ended = cli.resume(stopped)
    assert_refused(ended, str(stopped))
    assert cli.contents(stopped)["checkpoint/state.safetensors"] == before["checkpoint/state.safetensors"]
    assert_readable(stopped)
    assert cli.resume(stopped).code == 0


def test_a_disk_too_full_for_the_model(cli: Any, finished: Path, copied: Callable[..., Path]) -> None:
    """The model that is there stays whole when a resumed run cannot write it anew."""
    run = copied()
    (run / "summary.json").unlink()
    before = cli.contents(run)
    with cli.full_disk(300):
        ended = cli.resume(run)
    assert_refused(ended, "model.safetensors")
    assert cli.contents(run) == before


def test_a_disk_too_full_to_begin_leaves_the_run_that_was_to_be_replaced(
    cli: Any, copied: Callable[..., Path], classes: Path
) -> None:
    run = copied()
    before = cli.contents(run)
    with cli.full_disk(10):
        ended = cli.train(classes, run, "--overwrite")
    assert_refused(ended, "config.json")
    assert cli.contents(run) == before


def test_a_full_disk_in_a_program(classes: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    arguments = ["train", "--data", classes, "--model", "mlp", "--epochs", "1", "--out", tmp_path / "run"]
    program = [sys.executable, "-c", FULL, "3000", *map(str, arguments)]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert_readable(tmp_path / "run")


# A loss that becomes NaN --------------------------------------------------------------------------------------------


def test_a_loss_that_becomes_nan_in_the_first_epoch(cli: Any, classes: Path, tmp_path: Path) -> None:
    ended = cli.train(classes, tmp_path / "run", "--optimizer", "sgd", "--lr", "1e30")
    assert_refused(ended, "nan at step 2,", "epoch 1", "--lr")
    assert set(cli.contents(tmp_path / "run")) == {"config.json"}


def test_a_loss_that_becomes_nan_later_leaves_the_last_good_checkpoint(cli: Any, amounts: Path, tmp_path: Path) -> None:
    """A linear model at a rate at which the mean squared error grows step by step, until it overflows."""
    options = ["--model", "mlp:depth=0", "--optimizer", "sgd", "--lr", "30", "--schedule", "constant"]
    ended = cli.train(amounts, tmp_path / "run", *options, "--epochs", "50", "--lam", "1e-6")
    lines = cli.metrics(tmp_path / "run")
    good = len(lines)
    assert 0 < good < 50
    assert_refused(ended, f"epoch {good + 1}", "at step ", str(tmp_path / "run" / "checkpoint" / "state.safetensors"))
    state = checkpoint.load(tmp_path / "run" / "checkpoint" / "state.safetensors")
    assert state["epoch"] == good
    assert all(w.isfinite().all() for w in state["model"].values())
    assert not (tmp_path / "run" / "model.safetensors").exists()
    step = int(ended.err.split("at step ")[1].split(",")[0])
    steps = 6  # of an epoch: 96 training rows less 10 for validation, in batches of 16
    assert good * steps < step <= (good + 1) * steps


@pytest.mark.parametrize("validation", ["0", "0.1"])
@pytest.mark.parametrize("epochs", ["1", "3"])
def test_the_last_step_of_an_epoch_may_be_the_one_that_goes_wrong(
    cli: Any, amounts: Path, tmp_path: Path, validation: str, epochs: str
) -> None:
    """Its loss is fine, and the weights after it are not: neither a checkpoint nor a model is kept of these."""
    head, *lines = amounts.read_text().splitlines()
    large = [f"{row},{float(label) * 1000}" for row, _, label in (line.rpartition(",") for line in lines)]
    (tmp_path / "large.csv").write_text("\n".join([head, *large]))
    options = ["--model", "mlp:depth=0", "--optimizer", "sgd", "--lr", "1e38", "--batch-size", "1000"]
    options += ["--validation", validation, "--epochs", epochs, "--lam", "1e-38", "--schedule", "constant"]
    ended = cli.train(tmp_path / "large.csv", tmp_path / "run", *options)
    assert_refused(ended, "loss", "--lr")
    for file in (tmp_path / "run").rglob("*.safetensors"):
        assert all(w.isfinite().all() for w in load_file(file).values()), file
    assert not (tmp_path / "run" / "summary.json").exists()
