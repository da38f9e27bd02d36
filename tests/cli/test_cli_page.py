"""The page of a run: its sections, figures and texts, in one file that fetches nothing."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.pages import RUNS, Page, page_of, short_pages
from torchlasso import data
from torchlasso.runs.quality import MEASURES, Score
from torchlasso.runs.quality.tables import interval

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_pages")]


ALL = ("classes", "amounts", *RUNS)


@pytest.mark.parametrize("name", ALL)
def test_a_page_is_whole_and_small_and_fetches_nothing(run_of: Callable[[str], Path], name: str) -> None:
    page = page_of(run_of(name))
    assert (run_of(name) / "report.html").stat().st_size < 2_000_000
    assert not re.search(r"https?:|@import|url\((?!#)", page.source)
    links = [value or "" for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "href", "action")]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert not {"link", "iframe", "object"} & {tag for tag, _ in page.tags}
    assert len(page.all("script")) == ("path" in name)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ALL)
def test_a_page_can_be_read_without_seeing_it(run_of: Callable[[str], Path], name: str) -> None:
    page = page_of(run_of(name))
    assert page.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for drawing in page.all("svg"):
        assert drawing["role"] == "img"
        assert re.search(r"\d", drawing["aria-label"] or "")
    assert all(re.search(r"\d", image["alt"] or "") for image in page.all("img"))
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    assert {control["id"] for control in page.all("input")} == {label["for"] for label in page.all("label")}


FOR_ALL = [
    "Layers",
    "Inputs that are read",
    "Weights before and after",
    "Data",
    "Stability of the support",
    "Certificate",
]
HEADINGS = {
    "classes": ["Accuracy and sparsity", "Quality", "Classes", "Training", *FOR_ALL, "Configuration"],
    "amounts": ["Accuracy and sparsity", "Quality", "Training", *FOR_ALL, "Configuration"],
    "images": [
        *("Accuracy and sparsity", "Quality", "Classes", "Training", "Layers", "Remaining filters"),
        *FOR_ALL[1:],
        "Configuration",
    ],
    "path": ["From dense to sparse", "Quality", "Classes", "Training", *FOR_ALL, "Configuration"],
}


@pytest.mark.parametrize("name", HEADINGS)
def test_the_sections(run_of: Callable[[str], Path], name: str) -> None:
    assert page_of(run_of(name)).headings == HEADINGS[name]


@pytest.mark.parametrize(("name", "figures"), [("classes", 8), ("amounts", 7), ("path", 5), ("convolutions", 9)])
def test_the_figures(run_of: Callable[[str], Path], name: str, figures: int) -> None:
    """A page has the frontier, four figures of the training, two of layers and one of the support, if they apply."""
    assert len(page_of(run_of(name)).all("svg")) == figures


def test_the_headline_is_a_sentence_and_four_numbers(cli: Any, run_of: Callable[[str], Path]) -> None:
    page, summary = page_of(run_of("classes")), cli.summary(run_of("classes"))
    head = page.text[: page.text.index("Accuracy and sparsity")]
    assert f"{summary['nonzero']} of {summary['penalised']} remain, at a test error of" in head
    assert f"test error{100 * summary['error']:.2f} %dense: {100 * summary['dense']['error']:.2f} %" in head
    assert f"exact zeros{100 * summary['sparsity']:.1f} %" in head
    assert f"weights left{summary['nonzero']}of {summary['penalised']}" in head
    w = load_file(run_of("classes") / "model.safetensors")
    live = sum(
        int((w[name] != 0).any(1).sum()) * int((w[name] != 0).any(0).sum()) for name in ("fc1.weight", "head.weight")
    )
    assert f"live FLOPs{100 * live / (5 * 8 + 8 * 3):.1f} %{2 * live} of 128 for a row" in head


def test_the_layers_and_the_comparisons_are_there(run_of: Callable[[str], Path]) -> None:
    page, held = page_of(run_of("classes")), load_file(run_of("classes") / "model.safetensors")
    for name in ("fc1.weight", "head.weight"):
        assert f"{name}{'×'.join(map(str, held[name].shape))}" in page.text
        assert f"{100 * (held[name] == 0).double().mean():.1f} %" in page.text
    assert "torchlassodenseloss-term" in page.text.replace("\n", "")
    labels = [drawing["aria-label"] or "" for drawing in page.all("svg")]
    assert re.match(r"Test error against .*: torchlasso [\d.]+ % at .*, dense .*, loss-term", labels[0])
    assert re.match(r"λ by epoch: torchlasso from 0.02 to 0.02; loss-term from 0.02 to 0.02", labels[4])


@pytest.mark.parametrize("name", ["classes", "amounts", "path"])
def test_the_figures_of_the_summary_are_there(cli: Any, run_of: Callable[[str], Path], name: str) -> None:
    page, test = page_of(run_of(name)), cli.summary(run_of(name))["test"]
    assert f"On {test['rows']} test rows" in page.text
    for key, score in test["scores"].items():
        measure = MEASURES[key]
        cells = [measure.title, measure.shown(score["value"]), interval(measure, Score(**score))]
        assert re.search(r"\s*".join(map(re.escape, cells)), page.text), key
    for each in test["classes"]:
        recall = f"{100 * each['recall']:.1f} %"
        assert re.search(rf"{each['name']}\s*{each['support']}\s*{re.escape(recall)}", page.text)
    counts = "".join(str(count or "") for row in test["confusion"] for count in row)
    shown = "".join(re.findall(r'<td(?: class="(?:hit|miss)" [^>]*)?>(\d*)</td>', page.source))
    assert counts in shown


def test_a_run_of_an_earlier_version_has_no_figures(drawn_again: Callable[..., Page]) -> None:
    def change(run: Path) -> None:
        summary = json.loads((run / "summary.json").read_text())
        for part in (summary, summary["dense"], summary["loss_term"]):
            for key in ("test", "validation", "gap", "balanced_error"):
                del part[key]
        (run / "summary.json").write_text(json.dumps(summary))

    page = drawn_again("classes", change)
    assert "Quality" not in page.headings
    assert "test error" in page.text


def test_read_and_unread_features_are_named(drawn_again: Callable[..., Page]) -> None:
    def change(run: Path) -> None:
        held = load_file(run / "model.safetensors")
        held["fc1.weight"] = torch.ones_like(held["fc1.weight"])
        held["fc1.weight"][:, [1, 3]] = 0
        held["fc1.weight"][:, 4] = 2
        save_file(held, run / "model.safetensors")

    page = drawn_again("classes", change)
    assert "3 of 5 inputs can change the outputs" in page.text
    assert re.search(r"feature\s*norm of its weights\s*e[\d.]+\s*a[\d.]+\s*c[\d.]+", page.text)
    assert "Not read: b, d." in page.text


def test_the_pixels_that_are_read_are_shown_on_the_mean_images(run_of: Callable[[str], Path]) -> None:
    run = run_of("images")
    held, used = load_file(run / "model.safetensors"), torch.ones(10, dtype=torch.bool)
    for name in ("head.weight", "fc2.weight", "fc1.weight"):
        used = held[name][used].any(0)
    read = int(used.sum())
    page, dataset = page_of(run), data.load("digits")
    assert 0 < read < 64
    assert f"{read} of 64 pixels can change the outputs" in page.text
    labels = [image["alt"] or "" for image in page.all("img")]
    assert [label.split()[0] for label in labels] == ["fc1.weight:", "Map", "Mean"]
    assert "The mean images of the classes 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in page.text
    kept, _ = data.holdout(dataset.y, 0.1, 0)
    x, y = dataset.x[kept], dataset.y[kept]
    means = torch.stack([x[y == k].mean(0) for k in range(10)])
    assert torch.allclose(load_file(run / "mean_images.safetensors")["images"], means, atol=1e-6)


def test_the_filters_that_are_left_are_counted(run_of: Callable[[str], Path]) -> None:
    page, held = page_of(run_of("convolutions")), load_file(run_of("convolutions") / "model.safetensors")
    for name in ("conv1.weight", "conv2.weight"):
        left = int((held[name] != 0).flatten(1).any(1).sum())
        assert f"{name}: {left} of {len(held[name])} filters are left" in page.text


def test_a_run_without_mean_images_has_a_page(drawn_again: Callable[..., Page]) -> None:
    """One that was made before they were kept."""
    page = drawn_again("images", lambda run: (run / "mean_images.safetensors").unlink())
    assert len(page.all("img")) == 2
    assert "mean images" not in page.text


def test_weights_are_compared_with_the_dense_model_or_with_the_random_start(
    run_of: Callable[[str], Path], drawn_again: Callable[..., Page]
) -> None:
    assert "The line shows the dense model" in page_of(run_of("classes")).text
    assert "The line shows the dense model" in page_of(run_of("path")).text
    assert "The line shows the random start" in page_of(run_of("amounts")).text
    assert "The line shows the random start" in drawn_again("classes", lambda run: shutil.rmtree(run / "dense")).text


def test_a_refit_follows_the_training(run_of: Callable[[str], Path]) -> None:
    labels = [drawing["aria-label"] or "" for drawing in page_of(run_of("refit")).all("svg")]
    assert any(re.match("training loss by epoch: torchlasso from .*; refit from", label) for label in labels)


def test_every_point_of_a_path_is_there_and_the_chosen_one_is_seen(cli: Any, run_of: Callable[[str], Path]) -> None:
    run = run_of("path")
    page, lines = page_of(run), [json.loads(line) for line in (run / "path.jsonl").read_text().splitlines()]
    blocks = [attrs for attrs in page.all("div") if attrs.get("class") == "point"]
    assert [block["data-number"] for block in blocks] == [f"{k} of 4" for k in range(1, 5)]
    seen = [k for k, block in enumerate(blocks) if "hidden" not in block]
    assert [lines[k]["lam"] for k in seen] == [cli.summary(run)["lam"]]
    for line in lines:
        assert f"weights left{line['nonzero']}of 64" in page.text
        assert f"test error{100 * line['test']['error']:.2f} %" in page.text
    (slider,) = page.all("input")
    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "1", "4", str(seen[0] + 1))
    places = [(float(block["data-x"] or 0), float(block["data-y"] or 0)) for block in blocks if "data-x" in block]
    assert places == sorted(places)  # from dense to sparse, from left to right
    assert len(places) == sum(line["nonzero"] > 0 for line in lines)


def test_every_point_shows_its_inputs_and_its_filters(run_of: Callable[[str], Path]) -> None:
    for name, whole in (("path", 5), ("path of images", 64)):
        what, found = "inputs" if whole == 5 else "pixels", set()
        for k, block in enumerate(page_of(run_of(name)).source.split('<div class="point"')[1:]):
            w = load_file(run_of(name) / "points" / f"{k:03}.safetensors")
            used = w["head.weight"].any(0)
            read = int(w["fc1.weight"][used].any(0).sum())
            found.add(read)
            said = f"{read} of {whole} {what} can" if read else f"No {what[:-1]} changes the outputs"
            assert (said in block) == (read < whole), (name, k)
            assert ("<img" in block) == (whole == 64 and read > 0)
            assert (f"fc1.weight: {int(w['fc1.weight'].any(1).sum())} of 12 units are left" in block) == (whole == 64)
        assert len(found) > 1


def test_a_page_is_drawn_again_to_the_same_bytes(cli: Any, run_of: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("images", "path"):
        run = Path(shutil.copytree(run_of(name), tmp_path / run_of(name).name))
        before = (run / "report.html").read_bytes()
        assert cli("report", run, "--html").code == 0
        assert (run / "report.html").read_bytes() == before


def test_without_matplotlib_there_is_a_page_without_figures(
    drawn_again: Callable[..., Page], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    page = drawn_again("path of images")
    assert page.all("svg") == []
    assert "Figures need matplotlib, which is not installed: pip install 'torchlasso[figures]'." in page.text
    assert page.headings[:2] == ["From dense to sparse", "Quality"]
    assert len(page.all("input")) == 1
    assert page.all("img")  # these need none


@pytest.mark.parametrize("name", ["bench.json", "mean_images.safetensors", "dense/metrics.jsonl"])
def test_damaged_files_are_named(cli: Any, run_of: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(run_of("images" if "images" in name else "classes"), tmp_path / "run"))
    (run / name).write_text("{")
    before = (run / "report.html").read_bytes()
    cli.assert_refused(cli("report", run, "--html"), Path(name).name, "damaged")
    assert (run / "report.html").read_bytes() == before


def test_damaged_points_are_named(cli: Any, run_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(run_of("path"), tmp_path / "run"))
    held = load_file(run / "points" / "001.safetensors")
    save_file({name: w[:1] for name, w in held.items()}, run / "points" / "001.safetensors")
    cli.assert_refused(cli("report", run, "--html"), "points", "damaged")


def test_the_configuration_has_the_command_that_makes_such_a_run(
    cli: Any, run_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in ("path",):
        (command,) = re.findall(r"torchlasso (?:train|path) --data[^<]*", page_of(run_of(name)).source)
        program, *arguments = shlex.split(command)
        assert program == "torchlasso"
        with short_pages():
            assert cli(*arguments, "--out", tmp_path / name).code == 0
        config = [json.loads((run / "config.json").read_text()) for run in (run_of(name), tmp_path / name)]
        assert config[0] == config[1]
