"""``torchlasso export``: exported models predict the same as the run itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import torchlasso as tl
from torchlasso.export import to_pt2
from torchlasso.runs.card import ModelCard
from torchlasso.runs.finished import open_run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_registry")]

UNITS = ("--over", "units", "--model", "mlp:width=24,depth=2", "--lam", "0.002", "--epochs", "20")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eight dark and eight bright images of 6 × 6, in a folder for each."""
    for k, name in enumerate(("bright", "dark")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            grey = torch.randint(
                128 * (1 - k), 128 * (2 - k), (6, 6), generator=torch.Generator().manual_seed(9 * k + i)
            )
            Image.fromarray(grey.byte().numpy()).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.mark.parametrize(("form", "file"), [("onnx", "model.onnx"), ("pt2", "model.pt2")])
def test_an_exported_model_predicts_the_same_as_the_run(
    cli: Any, copied: Callable[[str], Path], classes: Path, form: str, file: str
) -> None:
    run = copied("classes")
    before = cli.contents(run)
    ended = cli("export", run, "--format", form)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.replace("\n", "").startswith(f"{run / 'export' / file}: ".replace("\n", ""))
    theirs, ours = (cli("predict", model, "--data", classes) for model in (run / "export" / file, run))
    assert (theirs.code, theirs.err) == (0, ours.err)
    assert _rounded(theirs.out) == _rounded(ours.out)
    assert {name: data for name, data in cli.contents(run).items() if name != f"export/{file}"} == before


def _rounded(table: str) -> list[str]:
    """The lines of a table of predictions without the last digits of probabilities."""
    return [line[:-2] for line in table.splitlines()]


def test_a_regression_is_exported(cli: Any, copied: Callable[[str], Path], amounts: Path) -> None:
    run = copied("amounts")
    assert cli("export", run, "--format", "pt2", "--out", run / "here.pt2").code == 0
    assert cli("predict", run / "here.pt2", "--data", amounts).out == cli("predict", run, "--data", amounts).out


def test_the_compacted_model_is_exported(cli: Any, classes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.train(classes, run, *UNITS).code == 0
    cli.assert_refused(cli("export", run, "--compact"), "no compacted model", f"torchlasso compact {run}")
    assert cli("compact", run).code == 0
    assert cli("export", run, "--compact").code == 0
    sizes = [tensor.dims for tensor in onnx.load(run / "export" / "compact.onnx").graph.initializer]
    assert all(24 not in dims for dims in sizes)
    ours, theirs = (cli("predict", m, "--data", classes).out for m in (run, run / "export" / "compact.onnx"))
    assert _rounded(ours) == _rounded(theirs)


def test_plain_and_compressed_weights(cli: Any, copied: Callable[[str], Path]) -> None:
    run = copied("classes")
    for form, file in (("safetensors", "model.safetensors"), ("compressed", "model.sparse.safetensors")):
        found = json.loads(cli("export", run, "--format", form, "--json").out)
        path = run / "export" / file
        assert found == {"file": str(path), "format": form, "bytes": path.stat().st_size}
        with safe_open(path, framework="pt") as opened:
            card = json.loads(opened.metadata()["torchlasso"])
        config = json.loads((run / "config.json").read_text())
        assert card["inputs"] == config["inputs"]
        assert card["model"] == config["options"]["model"]
    kept = load_file(run / "model.safetensors")
    plain = load_file(run / "export" / "model.safetensors")
    assert all(torch.equal(plain[name], tensor) for name, tensor in kept.items())
    model = open_run(str(run)).experiment.build_model()
    tl.load(run / "export" / "model.sparse.safetensors", into=model)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in kept.items())


def test_images_are_predicted_one_by_one_and_by_the_folder(cli: Any, images: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert cli.train(images, run, "--epochs", "10").code == 0
    one = cli("predict", run, "--data", images / "dark" / "0.png")
    assert one.code == 0
    head, line = one.out.splitlines()
    assert head == "row,prediction,probability,file"
    assert line.startswith("0,dark,")
    assert line.endswith(f",{images / 'dark' / '0.png'}")
    many = cli("predict", run, "--data", images / "bright").out.splitlines()[1:]
    assert [line.split(",")[1] for line in many] == ["bright"] * 8
    assert [Path(line.split(",")[3]).name for line in many] == [f"{i}.png" for i in range(8)]
    cli.assert_refused(cli.train(images / "dark" / "0.png", tmp_path / "no"), "training needs more than one image")


def test_bad_input(cli: Any, copied: Callable[[str], Path], classes: Path, tmp_path: Path) -> None:
    run = copied("classes")
    cli.assert_refused(cli("export", run, "--format", "onxn"), "unknown format 'onxn'", "did you mean 'onnx'")
    cli.assert_refused(cli("export", tmp_path / "nowhere"), "nowhere", "holds no run")
    cli.assert_refused(cli("export", run, "--format", "pt2", "--out", run / "m.bin"), "m.bin", "must end in .pt2")
    cli.assert_refused(cli("export", run, "--format", "pt2", "--out", run / "config.json" / "m.pt2"), "config.json")
    assert not (run / "export").exists()
    cli.assert_refused(cli("predict", tmp_path / "m.onnx", "--data", classes), "no file", "m.onnx")
    cli.assert_refused(cli("predict", classes, "--data", classes), "neither the folder of a run", ".onnx or .pt2")
    (tmp_path / "m.pt2").write_text("no model")
    cli.assert_refused(cli("predict", tmp_path / "m.pt2", "--data", classes), "m.pt2 is damaged")
    torch.export.save(torch.export.export(torch.nn.Linear(5, 3), (torch.randn(1, 5),)), tmp_path / "other.pt2")
    cli.assert_refused(cli("predict", tmp_path / "other.pt2", "--data", classes), "not written by torchlasso export")


def test_a_failed_export_leaves_the_earlier_file(cli: Any, copied: Callable[[str], Path]) -> None:
    run = copied("classes")
    assert cli("export", run, "--format", "safetensors").code == 0
    before = cli.contents(run)
    with cli.full_disk(100):
        assert cli("export", run, "--format", "safetensors").code == 2
    assert cli.contents(run) == before


@pytest.mark.parametrize("outputs", ["more", "several", "whole numbers"])
def test_a_card_that_does_not_fit_the_model(
    cli: Any, finished: Path, classes: Path, tmp_path: Path, outputs: str
) -> None:
    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return {"more": x, "several": (x[:, :3], x), "whole numbers": x[:, :3].long()}[outputs]

    run = open_run(str(finished / "classes"))
    card = ModelCard.of(run).to_dict()
    to_pt2(Other(), run.experiment.example, tmp_path / "m.pt2", metadata=card)
    cli.assert_refused(cli("predict", tmp_path / "m.pt2", "--data", classes), "outputs", "(120, 3)")
