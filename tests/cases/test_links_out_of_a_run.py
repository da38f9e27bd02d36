"""Links in the places of a run's folders: nothing is written to their targets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from torchlasso.cli.main import main

OPTIONS = ("--model", "mlp:width=4,depth=1", "--batch-size", "16", "--epochs", "1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    rows = "".join(f"{k % 7},{k % 5},{'yes' if k % 7 > 3 else 'no'}\n" for k in range(80))
    (folder / "rows.csv").write_text("a,b,y\n" + rows)
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", str(folder / "rows.csv"), "--out", str(folder / "run"), *OPTIONS])
    assert ended.value.code == 0
    return folder / "run"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("export", ("export", "{run}", "--format", "safetensors")),
        ("export", ("train", "--resume", "--out", "{run}")),
        ("checkpoint", ("train", "--resume", "--out", "{run}")),
        ("points", ("train", "--resume", "--out", "{run}")),
        ("dense", ("train", "--resume", "--out", "{run}")),
    ],
)
def test_a_link_in_the_place_of_a_folder(
    run: Path, tmp_path: Path, name: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    copy, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / name, ignore_errors=True)
    elsewhere.mkdir()
    (copy / name).symlink_to(elsewhere)
    with pytest.raises(SystemExit) as ended:
        main([word.format(run=copy) for word in command])
    assert ended.value.code == 2
    said = f"{copy / name} is a link, but a run writes a folder there; nothing was replaced"
    assert capsys.readouterr().err == f"error: {said}\n"
    assert not list(elsewhere.iterdir())
