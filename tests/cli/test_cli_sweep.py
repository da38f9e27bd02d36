"""torchlasso sweep: its trials are runs, the validation rows decide, it resumes to the bit, and bad input."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

from tests.support.command_line import succeed
from torchlasso import engine
from torchlasso.path import choose
from torchlasso.runs.folder import RunFolder
from torchlasso.runs.sweeping.page import sentence_of_choice
from torchlasso.runs.sweeping.record import SweepRecord, read_record

pytestmark = pytest.mark.slow

OPTIONS = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--epochs", "4", "--validation", "0.25")
GRID = ("--vary", "lr=0.05,0.01,0.0001", "--vary", "sparsity=0.5,0.8", "--jobs", "1")
SEARCH = ("--vary", "lr=1e-3..1e-1", "--vary", "sparsity=0.5..0.9", "--trials", "7", "--round", "4", "--jobs", "1")


@pytest.fixture(scope="module")
def sweep_of(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a finished sweep; not to be written to."""
    folder = tmp_path_factory.mktemp("sweeps")

    def finished(name: str, *options: str) -> Path:
        if not (folder / name).exists():
            succeed("sweep", "--data", classes, "--out", folder / name, *OPTIONS, *options)
        return folder / name

    return finished


def untimed(folder: Path) -> dict[str, Any]:
    record = json.loads((folder / "sweep.json").read_text())
    for trial in record["trials"]:
        if trial["point"] is not None:
            trial["point"]["seconds"] = 0
    return record  # type: ignore[no-any-return]


def weights(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("trials/*/model.safetensors")}


def test_a_grid_trains_all_combinations_as_train_does(
    cli: Any, classes: Path, sweep_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = sweep_of("whole", *GRID, "--keep-all")
    record = read_record(folder)
    assert [tuple(trial.values.values()) for trial in record.trials] == [
        (lr, zeros) for lr in (0.05, 0.01, 0.0001) for zeros in (0.5, 0.8)
    ]
    assert {trial.state for trial in record.trials} == {"done"}
    ended = cli("train", "--data", classes, "--out", tmp_path / "run", *OPTIONS, "--lr", "0.01", "--sparsity", "0.8")
    assert ended.code == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == weights(folder)["0004"]
    assert cli("report", folder / "trials" / "0004", "--html").code == 0
    page = (folder / "report.html").read_text()
    assert "<svg" in page
    assert page.count("<tr") >= 7


def test_the_validation_rows_choose_and_the_test_rows_are_looked_at_once(sweep_of: Callable[..., Path]) -> None:
    record = read_record(sweep_of("whole", *GRID, "--keep-all"))
    points = [trial.point for trial in record.trials if trial.point is not None]
    assert [point.test for point in points] == [None] * 6
    assert record.chosen == choose(points, "one-se").index
    assert record.choice is not None
    summary = RunFolder(sweep_of("whole") / "trials" / f"{record.chosen:04}").read_summary()
    assert record.test is not None
    assert (record.test.loss, record.test.error) == (summary.loss, summary.error)
    assert record.choice.point is not None
    assert summary.sparsity == record.choice.point.sparsity
    last = RunFolder(sweep_of("whole") / "trials" / f"{record.chosen:04}").read_metrics()[-1]
    assert record.choice.point.badness == pytest.approx(last["val_error"])


def test_bad_trials_are_pruned_and_the_others_are_the_same(sweep_of: Callable[..., Path]) -> None:
    whole, folder = sweep_of("whole", *GRID, "--keep-all"), sweep_of("grid", *GRID)
    record = read_record(folder)
    states = {trial.number: trial.state for trial in record.trials}
    assert set(states.values()) == {"done", "pruned"}
    assert states[5] == "pruned"  # a learning rate that is far too small, and sparser ones to compare with
    assert (whole / "trials" / "0005" / "summary.json").exists()
    assert not (folder / "trials" / "0005" / "summary.json").exists()
    trained = weights(folder)
    assert len(trained) == sum(state == "done" for state in states.values())
    assert trained.items() <= weights(whole).items()


def test_the_small_network_is_chosen_and_weights_are_counted_in_all_trials(sweep_of: Callable[..., Path]) -> None:
    vary = ("--vary", "model.width=2,64", "--sparsity", "0.5", "--choose", "within", "--tolerance", "0.99")
    record = read_record(sweep_of("sizes", *vary, "--jobs", "1"))
    left = [trial.point.nonzero for trial in record.trials if trial.point is not None]
    assert left[0] < left[1]
    assert record.chosen == 1
    assert f"{left[0]} weights left in the whole model" in sentence_of_choice(record)
    folder = sweep_of("grid", *GRID)
    for trial in read_record(folder).trials:
        assert trial.point is not None
        last = RunFolder(folder / "trials" / f"{trial.number:04}").read_metrics()[trial.point.epochs - 1]
        assert trial.point.nonzero == last["weights_left"] > 0


MOMENTS = [
    pytest.param(GRID, LambdaLR, "step", "before", 20, id="in a trial"),
    pytest.param(GRID, RunFolder, "start", "before", 3, id="a trial has not begun"),
    pytest.param(GRID, RunFolder, "write_checkpoint", "after", 5, id="an epoch is written"),
    pytest.param(GRID, SweepRecord, "write", "before", 5, id="a part is not recorded"),
    pytest.param(GRID, SweepRecord, "write", "before", 9, id="the pruned ones are not recorded"),
    pytest.param(GRID, RunFolder, "write_summary", "after", 2, id="a trial is done, and not recorded"),
    pytest.param(SEARCH, SweepRecord, "write", "after", 2, id="a round is suggested"),
    pytest.param(SEARCH, LambdaLR, "step", "before", 130, id="in the second round"),
]


@pytest.mark.parametrize(("options", "owner", "name", "when", "call"), MOMENTS)
def test_an_interrupted_sweep_resumes_to_the_bit(
    cli: Any,
    classes: Path,
    sweep_of: Callable[..., Path],
    tmp_path: Path,
    stop: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    owner: Any,
    name: str,
    when: str,
    call: int,
) -> None:
    expected = sweep_of("grid" if options is GRID else "search", *options)
    stop(owner, name, when, call)
    ended = cli("sweep", "--data", classes, "--out", tmp_path / "run", *OPTIONS, *options)
    monkeypatch.undo()
    assert ended.code == 130
    assert ended.err.strip() == f"interrupted; resume with: torchlasso sweep --resume --out {tmp_path / 'run'}"
    ended = cli("sweep", "--resume", "--out", tmp_path / "run", "--jobs", "1")
    assert (ended.code, ended.err) == (0, "")
    assert untimed(tmp_path / "run") == untimed(expected)
    assert weights(tmp_path / "run") == weights(expected)


def test_a_finished_sweep_trains_nothing_again(
    cli: Any, sweep_of: Callable[..., Path], tmp_path: Path, stop: Callable[..., None]
) -> None:
    run = shutil.copytree(sweep_of("grid", *GRID), tmp_path / "run")
    stop(LambdaLR, "step", "before", 1)
    assert cli("sweep", "--resume", "--out", run).code == 0
    assert (run / "sweep.json").read_bytes() == (sweep_of("grid") / "sweep.json").read_bytes()


def test_a_trial_that_fails_is_named_and_the_others_go_on(cli: Any, classes: Path, tmp_path: Path) -> None:
    vary = ("--vary", "penalty=mcp,l1", "--vary", "form=latent,proximal", "--sparsity", "0.5", "--jobs", "1")
    ended = cli("sweep", "--data", classes, "--out", tmp_path / "run", *OPTIONS, *vary)
    assert ended.code == 0, ended.err
    assert "penalty=mcp  form=latent  failed: " in ended.out
    record = read_record(tmp_path / "run")
    assert [trial.state for trial in record.trials] == ["failed", "done", "done", "done"]
    assert "not convex" in str(record.trials[0].error)
    assert "not convex" in (tmp_path / "run" / "report.html").read_text()
    assert record.chosen != 1


DYING = """
import os

from torch import nn


def linear(input_shape, outputs):
    if os.getpid() != PARENT:
        os._exit(1)  # as where memory is short
    return nn.Linear(input_shape[0], outputs)
"""


@pytest.mark.usefixtures("forked_workers")
def test_a_trial_that_kills_its_process_is_named_and_the_others_go_on(
    cli: Any, classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "DEATHS", 1)  # as often as it takes; test_engine has them all
    (tmp_path / "dying_trials.py").write_text(DYING.replace("PARENT", str(os.getpid())))
    monkeypatch.chdir(tmp_path)
    vary = ("--vary", "model=dying_trials:linear,mlp:width=8", "--jobs", "2", "--keep-all")
    ended = cli("sweep", "--data", classes, "--out", "run", *OPTIONS[2:], *vary)
    assert (ended.code, ended.err) == (0, "")
    states = {str(trial.values["model"]): trial.state for trial in read_record(tmp_path / "run").trials}
    assert states == {"dying_trials:linear": "failed", "mlp:width=8": "done"}
    assert "killed again and again" in ended.out


def test_if_all_trials_fail_the_first_reason_is_said(cli: Any, classes: Path, tmp_path: Path) -> None:
    vary = ("--vary", "lr=1e30,1e31", "--optimizer", "sgd", "--schedule", "constant", "--jobs", "1")
    ended = cli("sweep", "--data", classes, "--out", tmp_path / "run", *OPTIONS, *vary)
    cli.assert_refused(ended, "all 2 trials failed", "smaller --lr")


def test_json_is_the_record(cli: Any, sweep_of: Callable[..., Path], tmp_path: Path) -> None:
    run = shutil.copytree(sweep_of("grid", *GRID), tmp_path / "run")
    ended = cli("sweep", "--resume", "--out", run, "--json")
    assert json.loads(ended.out) == json.loads((run / "sweep.json").read_text())


BAD = [
    # the arguments, and the parts that the message must contain
    ([], "--vary", "lr=1e-3,3e-3"),
    (["--vary", "lr"], "lr", "option=value"),
    (["--vary", "lr=1e-3,abc"], "'abc'", "number"),
    (["--vary", "lr=1e-3,1e-3"], "twice"),
    (["--vary", "lr=1,2", "--vary", "lr=3"], "lr", "twice"),
    (["--vary", "lr=1,2", "--lr", "0.1"], "--lr", "--vary lr", "exclude"),
    (["--vary", "rl=1,2"], "unknown option 'rl'"),
    (["--vary", "epochs=1.5,2"], "'1.5'", "whole number"),
    (["--vary", "shrink=yes,no"], "'yes'", "true or false"),
    (["--vary", "lr=2..1"], "larger"),
    (["--vary", "lr=nan..1"], "larger"),
    (["--vary", "penalty=l1..mcp"], "range", "numbers"),
    (["--vary", "lr.x=1,2"], "lr", "model"),
    (["--vary", "label=a,b"], "--label", "all trials"),
    (["--vary", "augment=flip,crop"], "--augment", "list"),
    (["--vary", "sparsity=0.5,2"], "sparsity", "2"),
    (["--vary", "penalty=l1,l2"], "penalty", "l2"),
    (["--vary", "penalty=l1,mcp", "--form", "latent"], "penalty", "not convex"),
    (["--vary", "model.width=8,-1"], "model.width", "-1"),
    (["--vary", "over.n=1,2"], "over"),
    (["--vary", "lr=1,2", "--search", "best"], "best", "tpe"),
    (["--vary", "lr=1,2", "--trials", "3"], "--trials", "grid"),
    (["--vary", "lr=1..2", "--search", "grid"], "grid", "range"),
    (["--vary", "lr=1..2", "--trials", "0"], "--trials", "0"),
    (["--vary", "lr=1..2", "--round", "0"], "--round", "0"),
    (["--vary", "lr=1,2", "--choose", "first"], "first", "one-se"),
    (["--vary", "lr=1,2", "--tolerance", "2"], "--tolerance", "2"),
    (["--vary", "lr=1,2", "--validation", "0"], "--validation"),
    (["--vary", "lr=1,2", "--label", "nothing"], "nothing"),
    (["--vary", "lr=1,2", "--engine", "slurm"], "slurm", "ray"),
    (["--vary", "lr=1,2", "--jobs", "0"], "--jobs", "0"),
    (["--vary", "lr=1,2", "--resume"], "no sweep"),
]


@pytest.mark.parametrize(("given", "names"), [(each[0], each[1:]) for each in BAD], ids=[" ".join(b[0]) for b in BAD])
def test_bad_options_leave_nothing_behind(
    cli: Any, classes: Path, tmp_path: Path, given: list[str], names: tuple[str, ...]
) -> None:
    cli.assert_refused(cli("sweep", "--data", classes, "--out", tmp_path / "run", *OPTIONS, *given), *names)
    assert not (tmp_path / "run").exists()


def test_folders_that_hold_something_else(
    cli: Any, classes: Path, sweep_of: Callable[..., Path], tmp_path: Path
) -> None:
    run = shutil.copytree(sweep_of("grid", *GRID), tmp_path / "run")
    again = ("sweep", "--data", classes, *OPTIONS, *GRID, "--out")
    cli.assert_refused(cli(*again, run), "already holds a sweep", "--resume")
    cli.assert_refused(cli(*again, run / "trials" / "0001"), "something else")
    cli.assert_refused(cli("report", run), "holds a sweep", "trials/000")
    cli.assert_refused(cli("compact", run / "trials" / "0005"), "pruned trial", "--keep-all")
    (tmp_path / "file").touch()
    cli.assert_refused(cli(*again, tmp_path / "file"), "is a file")


def test_a_resumed_sweep_keeps_its_options(cli: Any, sweep_of: Callable[..., Path], tmp_path: Path) -> None:
    run = shutil.copytree(sweep_of("grid", *GRID), tmp_path / "run")
    for option, value in (("--epochs", "5"), ("--vary", "lr=1,2"), ("--choose", "best"), ("--lr", "0.1")):
        cli.assert_refused(cli("sweep", "--resume", "--out", run, option, value), option, "keeps its options")
    assert cli("sweep", "--resume", "--out", run, "--epochs", "4", "--threads", "1").code == 0


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"options": {}}', '{"options": {"vary": ["lr=1,2"]}, "given": {"lr": []}}']
)
def test_a_damaged_record(cli: Any, sweep_of: Callable[..., Path], tmp_path: Path, content: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "sweep.json").write_text(content)
    cli.assert_refused(cli("sweep", "--resume", "--out", run), "sweep.json", "damaged")
    assert (run / "sweep.json").read_text() == content


def test_a_record_runs_no_code_that_was_not_allowed(cli: Any, sweep_of: Callable[..., Path], tmp_path: Path) -> None:
    run = shutil.copytree(sweep_of("grid", *GRID), tmp_path / "run")
    for place in ("given", "values"):
        record = json.loads((sweep_of("grid") / "sweep.json").read_text())
        values = record["given"] if place == "given" else record["trials"][0]["values"]
        values["model"] = "os:getcwd"
        record["trials"][0]["state"] = "waiting"
        (run / "sweep.json").write_text(json.dumps(record))
        cli.assert_refused(cli("sweep", "--resume", "--out", run), "os:getcwd", "--allow-code")
