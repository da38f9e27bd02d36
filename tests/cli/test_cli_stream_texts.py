"""Training on texts that stay on the disk: the same run as in memory, whatever is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch.optim.lr_scheduler import LambdaLR

from tests.cli.test_cli_stream import interrupted, weights
from tests.cli.test_cli_texts import write_tickets

pytestmark = pytest.mark.usefixtures("own_cache")

MODELS = {"text-cnn": "text-cnn:dim=8,filters=4", "transformer": "transformer:dim=8,heads=2,layers=1"}
OPTIONS = ("--epochs", "2", "--batch-size", "16", "--lam", "0.001", "--max-length", "14")


@pytest.fixture
def tickets(tmp_path: Path) -> Path:
    return write_tickets(tmp_path / "tickets.csv", 120)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_weights_are_the_same_as_in_memory_after_a_resume_too(
    cli: Any, tickets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    options = ("--model", MODELS[model], *OPTIONS, "--save-every", "2")
    assert cli.train(tickets, tmp_path / "memory", *options).code == 0
    with monkeypatch.context() as patched:
        patched.setattr(LambdaLR, "step", interrupted(LambdaLR.step, call=5))
        stopped = cli.train(tickets, tmp_path / "disk", *options, "--stream", "always", "--workers", "1")
    assert stopped.code == 130
    assert cli.resume(tmp_path / "disk").code == 0
    assert weights(tmp_path / "disk") == weights(tmp_path / "memory")
    found, wanted = (cli.summary(tmp_path / name, timed=False) for name in ("disk", "memory"))
    assert found | {"data": None} == wanted | {"data": None}
    assert found["data"]["inputs"] == wanted["data"]["inputs"]
    assert any("The rows stay on the disk" in note for note in found["data"]["notes"])


@pytest.mark.slow
def test_words_are_chosen_cut_and_predicted_as_in_memory(cli: Any, tickets: Path, tmp_path: Path) -> None:
    said = list[str]()
    for stream in ("never", "always"):
        run = tmp_path / stream
        options = ("--model", MODELS["text-cnn"], "--features", "8", *OPTIONS[:4], "--stream", stream)
        assert cli.train(tickets, run, *options).code == 0
        assert cli("compact", run).code == 0
        assert cli("export", run, "--compact", "--format", "pt2").code == 0
        for model in (run, run / "export" / "compact.pt2"):  # the second has fewer words, with other numbers
            ended = cli("predict", model, "--data", tickets, "--stream", stream, "--workers", "1")
            assert ended.code == 0, ended.err
            assert ("stay on the disk" in ended.err) == (stream == "always")
            said.append(ended.out)
    assert weights(tmp_path / "never") == weights(tmp_path / "always")
    assert said[:2] == said[2:]
    assert said[0] != ""


@pytest.mark.slow
def test_folds_of_a_path_of_texts_stay_on_the_disk(cli: Any, tickets: Path, tmp_path: Path) -> None:
    found = []
    for stream in ("never", "always"):
        options = ("--lams", "0.01,0.1", "--folds", "2", "--epochs", "1", "--epochs-each", "1", "--jobs", "1")
        run = cli(
            "path",
            "--data",
            tickets,
            "--out",
            tmp_path / stream,
            "--model",
            MODELS["text-cnn"],
            *options,
            "--stream",
            stream,
        )
        assert run.code == 0, run.err
        found.append([(tmp_path / stream / f"fold-{k}.jsonl").read_text() for k in range(2)])
    untimed = [[line.split('"seconds"')[0] for text in each for line in text.splitlines()] for each in found]
    assert untimed[0] == untimed[1]


def test_a_broken_row_is_one_line(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a b", "label": 1}\n{"text": "a b", "label"\n')
    for stream in ("never", "always"):
        ended = cli.train(tmp_path / "a.jsonl", tmp_path / "run", "--text", "text", "--stream", stream)
        cli.assert_refused(ended, "a.jsonl, line 2")
        assert not (tmp_path / "run").exists()
