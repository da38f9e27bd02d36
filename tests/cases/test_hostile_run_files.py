"""Files of a run and data from strangers: one line, exit code 2, bounded memory; nothing a terminal obeys."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import torchlasso as tl
from tests.support.command_line import succeed
from torchlasso._core.files import MOST, read_json
from torchlasso.cli.main import main
from torchlasso.runs.folder import RunFolder

NAMES = tuple(f"\x1b[31m[bold]{name}[/bold]<script>" for name in "abc")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of classes with hostile names, and a run on them that was compacted."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    labels = np.array(NAMES)[rng.integers(0, 3, 60)]
    np.savez(folder / "rows.npz", x=rng.normal(size=(60, 3)), y=labels)
    options = ("--model", "mlp:width=4,depth=1", "--epochs", "1", "--lam", "0.01")
    succeed("train", "--data", folder / "rows.npz", "--out", folder / "run", *options)
    succeed("compact", folder / "run")
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "run", tmp_path / "run"))


Tool = Callable[..., tuple[object, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Tool:
    def call(*words: object) -> tuple[object, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        return (ended.value.code, *capsys.readouterr())

    return call


def assert_refused(ended: tuple[object, str, str], *names: str) -> None:
    code, _, err = ended
    assert code == 2, ended
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert len(err) <= 400
    assert err.strip().isprintable()
    for name in names:
        assert name in err, err


def assert_shown(text: str) -> None:
    """Nothing that a terminal would obey."""
    assert text.replace("\n", "").isprintable()


# ---- weights


WEIGHTS = ("model.safetensors", "compact.safetensors")


@pytest.mark.parametrize("name", WEIGHTS)
def test_every_flipped_bit_of_weights_is_refused_or_changes_nothing(run: Path, name: str) -> None:
    """Of the header and of the tensors, a sample of the places."""
    folder, file = RunFolder(run), run / name
    read = folder.read_model if name == "model.safetensors" else folder.read_compact
    content = file.read_bytes()
    expected, cuts = read()
    unnoticed = 0
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        file.write_bytes(changed)
        try:
            found, other = read()
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            continue
        unnoticed += 1
        assert other == cuts
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert unnoticed < len(content) / 70  # in the name of the checksum itself


def test_points_and_mean_images_have_a_checksum(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_weights(3, {"w": torch.arange(9.0)})
    folder.write_means(torch.rand(2, 1, 3, 3))
    for file, read in ((tmp_path / "points" / "003.safetensors", lambda: folder.read_weights(3)),
                       (tmp_path / "mean_images.safetensors", folder.read_means)):  # fmt: skip
        read()
        changed = bytearray(file.read_bytes())
        changed[-2] ^= 4
        file.write_bytes(changed)
        with pytest.raises(ValueError, match="checksum"):
            read()


def test_weights_of_others_have_no_checksum_and_are_read(cli: Tool, run: Path, trained: Path, tmp_path: Path) -> None:
    before = cli("predict", run, "--data", trained / "rows.npz")
    weights = load_file(run / "model.safetensors")
    save_file(weights, run / "model.safetensors")
    assert cli("predict", run, "--data", trained / "rows.npz") == before
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_file(net.state_dict(), tmp_path / "others.safetensors")
    tl.load(tmp_path / "others.safetensors", into=other)
    assert torch.equal(net.weight, other.weight)


# ---- JSON


def test_json_that_is_deep_or_huge_or_no_json(cli: Tool, run: Path) -> None:
    texts = {
        "nested too deeply": "[" * 100_000,
        "nested": '{"options":' * 50_000 + "1" + "}" * 50_000,
        "more than": " " * (MOST + 1),
        "UTF-8": b"\xff\xfe\x00",
        "not a finite number": '{"options": NaN}',
        "damaged": '{"options": 1e999}',
        "is damaged": '{"options": ' + "9" * 5000 + "}",
    }
    for name in ("config.json", "summary.json"):
        whole = (run / name).read_bytes()
        for word, text in texts.items():
            (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
            assert_refused(cli("report", run), name, word)
        (run / name).write_bytes(whole)


STRANGE: list[Any] = [None, True, -1, 2.5, "x", "\x1b[2J", [], {}, 10**30, "a" * 10_000, [[["deep"]]]]


def everywhere(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a value of JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in everywhere(item, (*path, key)))]


@pytest.mark.parametrize("name", ["config.json", "summary.json", "metrics.jsonl"])
def test_any_type_anywhere_in_the_files_of_a_run(cli: Tool, run: Path, name: str) -> None:
    """Each value is replaced by one of another kind; the result is a report or one line."""
    whole = json.loads((run / name).read_text())
    for k, place in enumerate(everywhere(whole)):
        changed = json.loads(json.dumps(whole))
        parent: Any = changed
        for key in place[:-1]:
            parent = parent[key]
        value = STRANGE[k % len(STRANGE)]
        if place:
            parent[place[-1]] = value
        (run / name).write_text(json.dumps(changed if place else value))
        code, out, err = cli("report", run)
        assert code in (0, 2), (place, value, err)
        assert_shown(out)
        if code:
            assert_refused((code, out, err))
    (run / name).write_text("")
    if name != "metrics.jsonl":
        assert_refused(cli("report", run), name)


def test_pipes_and_links_to_endless_files_are_not_read(cli: Tool, run: Path) -> None:
    for name in ("summary.json", "model.safetensors", "config.json"):
        (run / name).unlink()
        os.mkfifo(run / name)
        assert_refused(cli("report", run))
        (run / name).unlink()
        (run / name).symlink_to("/dev/zero")
        assert_refused(cli("report", run))
    with pytest.raises(FileNotFoundError):
        read_json("/dev/zero")


def test_a_path_without_points(cli: Tool, run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    config["options"]["path"] = {
        "points": 3, "sparsest": 0.9, "densest": 0.5, "lams": [], "epochs_each": 1, "lr_growth": 1.0, "collapse": 0.25,
        "choose": "best", "tolerance": 0.005, "folds": None,
    }  # fmt: skip
    (run / "config.json").write_text(json.dumps(config))
    for text in ("", "\n", "{}\n", "[]\n", "1\n"):
        (run / "path.jsonl").write_text(text)
        assert_refused(cli("report", run, "--html"), "path.jsonl")


@pytest.mark.parametrize("key", ["shape", "outputs", "classes", "features", "standardizer"])
def test_inputs_that_do_not_fit_each_other(cli: Tool, run: Path, trained: Path, key: str) -> None:
    other = {"shape": [4], "outputs": 2, "classes": ["a"], "features": ["a"], "standardizer": {"mean": [0], "std": [1]}}
    config = json.loads((run / "config.json").read_text())
    config["inputs"][key] = other[key]
    (run / "config.json").write_text(json.dumps(config))
    assert_refused(cli("predict", run, "--data", trained / "rows.npz"), "config.json")


# ---- names


def test_names_are_escaped_on_the_screen_and_on_the_page(cli: Tool, run: Path, trained: Path) -> None:
    code, out, err = cli("predict", run, "--data", trained / "rows.npz")
    assert code == 0
    assert_shown(out + err)
    assert "\\x1b[31m[bold]" in out
    _, out, _ = cli("report", run, "--json")
    assert_shown(out)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "[/bold]&lt;script&gt;" in page
    assert "[/bold]<script>" not in page


def test_names_that_are_not_utf_8(cli: Tool, run: Path, trained: Path, tmp_path: Path) -> None:
    strange = tmp_path / os.fsdecode(b"f\xff\x1b[2J.npz")
    shutil.copy(trained / "rows.npz", strange)
    assert cli("predict", run, "--data", strange)[0] == 0
    assert_refused(cli("predict", run, "--data", tmp_path / os.fsdecode(b"g\xff.npz")), r"g\udcff.npz")
    out = tmp_path / os.fsdecode(b"r\xfe")
    words = ("--data", strange, "--out", out, "--model", "mlp:width=2", "--epochs", "1")
    code, text, err = cli("train", *words)
    assert (code, err) == (0, "")
    assert_shown(text)
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["options"]["data"] == str(strange)
    assert cli("train", "--resume", "--out", out)[0] == 0
    assert_refused(cli("train", *words), r"r\udcfe")


def test_an_error_of_any_kind_and_length_is_one_line(cli: Tool, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = (KeyError("x" * 2000), RuntimeError("a\nb\x07"), MemoryError(), RecursionError(), AttributeError("\u202e"))
    for error in errors:

        def failing(*_: Any, error: Exception = error) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("torchlasso.cli.report.open_run", failing)
            assert_refused(cli("report", run))
    assert_refused(cli("report", "r" * 5000))
    assert_refused(cli("report", "\x1b[2J\nmore"), r"\x1b[2J")


# ---- memory


@pytest.mark.parametrize("spec", ["mlp:width=1000000000", "mlp:depth=1000000000", "mlp:width=99999999999999999999999"])
def test_a_model_of_a_file_that_is_too_large(cli: Tool, run: Path, spec: str) -> None:
    config = json.loads((run / "config.json").read_text())
    config["options"]["model"] = spec
    (run / "config.json").write_text(json.dumps(config))
    assert_refused(cli("report", run))


# ---- data


HEADERS = {
    "no header": b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16,
    "code": b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').getcwd()".ljust(31) + b"\n",
    "another type": b"\x93NUMPY\x01\x00\x40\x00"
    + b"{'descr': 3, 'fortran_order': False, 'shape': (2,)}".ljust(63)
    + b"\n",
    "a set": b"\x93NUMPY\x01\x00\x40\x00" + b"{1, 2}".ljust(63) + b"\n",
    "no version": b"\x93NUMPY\x09\x09",
    "cut": b"\x93NUM",
    "nothing": b"",
    "deep": b"\x93NUMPY\x02\x00\x00\x20\x00\x00" + b"[" * 8192,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_damaged_npz_header_is_refused(cli: Tool, run: Path, tmp_path: Path, header: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "rows.npz", "w") as archive:
        archive.writestr("x.npy", header + bytes(64))
    assert_refused(cli("predict", run, "--data", tmp_path / "rows.npz"), "rows.npz")


def test_formats_of_images_that_other_programs_run_are_not_opened(cli: Tool, run: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n")
    assert_refused(cli("predict", run, "--data", tmp_path / "x.png"), "x.png", "not a readable image")


def test_an_image_of_more_pixels_than_pillow_wants(cli: Tool, run: Path, tmp_path: Path) -> None:
    Image.new("1", (30_000, 4_000)).save(tmp_path / "wide.png")
    assert_refused(cli("predict", run, "--data", tmp_path / "wide.png"), "wide.png")
