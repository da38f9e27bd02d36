"""Functions that files name: none is run that the user has not allowed, and none that came with the files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from torchlasso.export import to_pt2
from torchlasso.runs.card import ModelCard
from torchlasso.runs.finished import open_run
from torchlasso.runs.folder import RunFolder

OPTIONS = ["--model", "mlp:width=8,depth=1", "--epochs", "1"]
EVIL = "sent.evil:build"
CODE = """
from pathlib import Path

Path({canary!r}).touch()


def build(*args, **kwargs):
    Path({canary!r}).touch()
"""
COMMANDS = {
    "report": ["report", "{run}"],
    "report as a page": ["report", "{run}", "--html"],
    "compact": ["compact", "{run}"],
    "export": ["export", "{run}", "--format", "pt2"],
    "predict": ["predict", "{run}", "--data", "{data}"],
    "bench": ["bench", "{run}", "--seconds", "0.01"],
    "resume": ["train", "--resume", "--out", "{run}"],
    "teacher": ["train", "--data", "{data}", "--out", "{run}-2", "--teacher", "{run}", *OPTIONS],
}
USES = [("model", command) for command in COMMANDS] + [
    ("loss", "predict"),
    ("loss", "bench"),
    ("loss", "resume"),
    ("data", "bench"),
    ("data", "resume"),
    ("augment", "resume"),
]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that is there once code of the package ``sent`` has run, which lies in the current folder."""
    path = tmp_path / "canary"
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, path)
    yield path
    for name in [name for name in sys.modules if name.partition(".")[0] == "sent"]:
        del sys.modules[name]


def plant(folder: Path, canary: Path) -> None:
    (folder / "sent").mkdir()
    for name in ("__init__.py", "evil.py"):
        (folder / "sent" / name).write_text(CODE.format(canary=str(canary)))


def rewrite(run: Path, **options: Any) -> None:
    """Change options in the configuration of a run."""
    config = json.loads((run / "config.json").read_text())
    config["options"] |= options
    (run / "config.json").write_text(json.dumps(config))


def arguments(command: str, run: Path, data: Path) -> list[str]:
    return [part.format(run=run, data=data) for part in COMMANDS[command]]


@pytest.mark.parametrize(("option", "command"), USES)
def test_functions_that_a_run_names_do_not_run(
    cli: Any, copied: Callable[[str], Path], classes: Path, canary: Path, option: str, command: str
) -> None:
    run = copied("classes")
    rewrite(run, **{option: [EVIL] if option == "augment" else EVIL})
    before = cli.contents(run)
    cli.assert_refused(cli(*arguments(command, run, classes)), str(run / "config.json"), f"--allow-code {EVIL}")
    cli.assert_refused(cli(*arguments(command, run, classes), "--allow-code", "sent.evil:other"), EVIL)
    assert not canary.exists()
    assert cli.contents(run) == before


@pytest.mark.parametrize("command", ["report", "predict", "resume"])
@pytest.mark.parametrize("place", ["in the folder", "at a comparison"])
def test_nothing_is_imported_from_the_folder_of_a_run(
    cli: Any,
    copied: Callable[[str], Path],
    classes: Path,
    canary: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    place: str,
) -> None:
    """Not even with consent, and though it is the current folder."""
    run = copied("classes")
    rewrite(run, model=EVIL)
    shutil.rmtree(canary.parent / "sent")
    plant(run if place == "in the folder" else run / "dense", canary)
    monkeypatch.chdir(run if place == "in the folder" else run / "dense")
    for consent in ([], ["--allow-code", EVIL]):
        ended = cli(*arguments(command, run, classes), *consent)
        cli.assert_refused(ended, EVIL, "the run's folder" if consent else "--allow-code")
    assert not canary.exists()


def test_a_comparison_that_names_another_function(
    cli: Any, copied: Callable[[str], Path], canary: Path, models: str
) -> None:
    run = copied("classes")
    rewrite(run / "dense", model=EVIL)
    cli.assert_refused(cli("bench", run, "--seconds", "0.01"), "dense", EVIL)
    assert not canary.exists()


def test_a_teacher_that_a_resumed_run_names(
    cli: Any, copied: Callable[[str], Path], finished: Path, tmp_path: Path, canary: Path
) -> None:
    run, teacher = copied("classes"), Path(shutil.copytree(finished / "classes", tmp_path / "teacher"))
    rewrite(teacher, model=EVIL)
    rewrite(run, teacher=str(teacher))
    cli.assert_refused(cli.resume(run), "teacher", EVIL)
    assert not canary.exists()


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_card_that_names_a_loss(
    cli: Any, finished: Path, classes: Path, tmp_path: Path, canary: Path, form: str
) -> None:
    run = open_run(str(finished / "classes"))
    card = ModelCard.of(run).to_dict() | {"loss_name": EVIL}
    path = tmp_path / f"model.{form}"
    if form == "pt2":
        to_pt2(run.model, run.experiment.example, path, metadata=card)
    else:
        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 5]) for name in ("input", "output"))
        graph = helper.make_graph([helper.make_node("Identity", ["input"], ["output"])], "graph", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, {"torchlasso": json.dumps(card)})
        path.write_bytes(model.SerializeToString())
    cli.assert_refused(cli("predict", path, "--data", classes), path.name, f"--allow-code {EVIL}")
    assert not canary.exists()


def test_with_consent(cli: Any, classes: Path, tmp_path: Path, models: str) -> None:
    """Consent is --allow-code or the same name as an option; functions that a command does not use need none."""
    run, name = tmp_path / "run", f"{models}:noisy"
    assert cli.train(classes, run, "--model", name).code == 0
    cli.assert_refused(cli("report", run), f"--allow-code {name}")
    assert cli("report", run, "--allow-code", name).code == 0
    assert cli("predict", run, "--data", classes, "--allow-code", name, "--allow-code", "other:name").code == 0
    cli.assert_refused(cli.resume(run), f"--allow-code {name}")
    assert cli.resume(run, "--model", name).code == 0
    rewrite(run, loss=f"{models}:loss")
    assert cli("report", run, "--allow-code", name).code == 0
    cli.assert_refused(cli("report", run, "--allow-code", "noisy"), "--allow-code", "'noisy'")


def test_the_command_for_a_resume_has_the_consent(
    cli: Any, classes: Path, tmp_path: Path, models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: RunFolder, state: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "write_checkpoint", interrupted)
    ended = cli.train(classes, tmp_path / "run", "--model", f"{models}:noisy")
    assert ended.code == 130
    assert ended.err.rstrip().endswith(f"--resume --out {tmp_path / 'run'} --allow-code {models}:noisy")


@pytest.mark.parametrize("name", ["sent_train:build", "hf:train"])
def test_the_name_of_a_data_file_is_not_one_of_code(
    cli: Any, classes: Path, tmp_path: Path, canary: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / name).write_text("")
    (data / "sent_train.py").write_text(CODE.format(canary=str(canary)))
    shutil.copy(classes, data / "train.csv")
    monkeypatch.chdir(data)
    assert cli.train(".", tmp_path / "run").code == 0  # of the table
    assert not canary.exists()


def test_a_package_beside_a_module_of_the_user_is_not_preferred(tmp_path: Path, canary: Path) -> None:
    """The current folder is searched for the function that was named, and last for all that is imported later."""
    from torchlasso._core.functions import import_function

    (tmp_path / "a_module_of_the_user.py").write_text("def build(): return 1")
    (tmp_path / "wsgiref").mkdir()
    (tmp_path / "wsgiref" / "__init__.py").write_text(CODE.format(canary=str(canary)))
    assert import_function("a_module_of_the_user:build")() == 1
    import wsgiref  # noqa: F401

    assert not canary.exists()
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.slow
def test_a_module_in_the_current_folder_does_not_stand_in_for_a_library(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "typer.py").write_text(CODE.format(canary=str(tmp_path / "canary")))
    (tmp_path / "onnxruntime.py").write_text(CODE.format(canary=str(tmp_path / "canary")))
    program = [sys.executable, "-m", "torchlasso", "predict", "nowhere.onnx", "--data", "digits"]
    done = subprocess.run(program, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert not (tmp_path / "canary").exists()
