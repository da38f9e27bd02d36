"""torchlasso select: the features of a table in order, their stability and accuracy."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import succeed
from tests.support.selecting import FAST, NAMES, few_points, made_genes, made_patients, write
from torchlasso.cli.main import main
from torchlasso.estimators import base
from torchlasso.estimators.network_path import TrainingLength
from torchlasso.figures import _style

pytestmark = pytest.mark.slow

FASTEST = ("--pairs", "2", "--folds", "2", "--jobs", "1")


@pytest.fixture(scope="module", autouse=True)
def fewer_points() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_points(patch)
        yield


@pytest.fixture(scope="module")
def genes() -> dict[str, Any]:
    return made_genes()


@pytest.fixture(scope="module")
def table(genes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("genes") / "genes.csv", genes)


@pytest.fixture(scope="module")
def selected(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A selection of two features; not to be written to."""
    out = tmp_path_factory.mktemp("selected") / "two"
    succeed("select", "--data", table, "--group", "animal", "--features", "2", *FAST, "--out", out)
    return out


def test_the_chosen_features_come_in_order_with_what_they_stand_for(selected: Path) -> None:
    found = json.loads((selected / "selection.json").read_text())
    assert [each["name"] for each in found["chosen"]] == ["gene 7", "gene 2"]
    first, second = found["chosen"]
    assert first["partners"] == []
    assert [partner["name"] for partner in second["partners"]] == ["gene 3"]
    assert 0.9 < second["partners"][0]["correlation"] < 1
    assert first["frequency"] >= second["frequency"] > 0.5
    assert (found["constant"], found["copies"]) == (["gene 9"], {"gene 8": "gene 0"})
    assert (found["columns"], found["rows"], found["groups"], found["halves"], found["folds"]) == (12, 120, 30, 6, 3)


def test_the_accuracy_is_that_of_rows_that_were_not_trained_on(selected: Path) -> None:
    found = json.loads((selected / "selection.json").read_text())
    assert found["at"]["features"] == 2
    assert 0.7 < found["at"]["score"] < 1
    numbers = [point["features"] for point in found["curve"]]
    assert numbers == sorted(numbers)
    assert numbers[-1] <= 10
    assert found["l1"]
    assert found["l1_at"]["features"] == 2
    assert 0.7 < found["l1_at"]["score"] < 1
    assert found["everything"]["features"] == 10
    assert found["one_se"]["features"] >= 1


def test_the_table_of_features_has_all_columns(selected: Path) -> None:
    with (selected / "features.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["feature"] for row in rows) == sorted(NAMES)
    assert [row["feature"] for row in rows[:2]] == ["gene 7", "gene 2"]
    assert [row["selected"] for row in rows] == ["1"] * 2 + ["0"] * 10
    assert {row["feature"]: row["correlated"] for row in rows[-2:]} == {
        "gene 9": "constant",
        "gene 8": "a copy of gene 0",
    }
    shares = [float(row["frequency"]) for row in rows[2:-2]]
    assert shares == sorted(shares, reverse=True)


def test_the_page_is_self_contained_and_has_everything(selected: Path) -> None:
    page = (selected / "report.html").read_text()
    assert "default-src 'none'" in page
    shown = (
        "2. gene 2",
        "gene 3 (0.9",
        "Nearly the same",
        "gene 8 (of gene 0)",
        "30 groups",
        "2 features of 12",
        "gene 9",
    )
    for text in shown:
        assert text in page
    assert page.count("<svg") == 2
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_rate_of_false_features(cli: Any, table: Path, tmp_path: Path) -> None:
    options = ("--ignore", "animal,gene 3", "--fdr", "0.5", *FAST, "--json")
    ended = cli("select", "--data", table, *options, "--out", tmp_path)
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found == json.loads((tmp_path / "selection.json").read_text())
    chosen = {each["name"]: each["q_value"] for each in found["chosen"]}
    assert set(chosen) == {"gene 2", "gene 7"}
    assert all(0 < q <= 0.5 for q in chosen.values())
    assert "q-value" in ended.err


def test_numbers_and_the_rule_of_one_standard_error(cli: Any, genes: dict[str, Any], tmp_path: Path) -> None:
    x = {name: np.array(genes[name], dtype=float) for name in NAMES}
    noise = np.random.default_rng(1).normal(size=120)
    y = [f"{value:.5f}" for value in 2 * x["gene 2"] - 3 * x["gene 7"] + 0.3 * noise]
    path = write(tmp_path / "numbers.csv", {**{name: genes[name] for name in NAMES}, "dose": y})
    ended = cli("select", "--data", path, "--label", "dose", *FAST, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert found["measure"] == "R²"
    assert {"gene 2", "gene 7"} <= {each["name"] for each in found["chosen"]}
    assert len(found["chosen"]) == found["one_se"]["features"]
    assert found["at"]["score"] > 0.9


def test_a_network(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the product of two features says anything, which no linear model sees."""
    monkeypatch.setattr(base, "TrainingLength", lambda epochs, *rest: TrainingLength(epochs // 2, *rest))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    columns: dict[str, Any] = {f"f{i}": [f"{value:.4f}" for value in x[:, i]] for i in range(6)}
    columns["label"] = (x[:, 1] * x[:, 4] > 0).astype(int).tolist()
    path = write(tmp_path / "product.csv", columns)
    options = ("--hidden", "16", "--features", "2", "--pairs", "1", "--folds", "2", "--jobs", "1")
    ended = cli("select", "--data", path, *options, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert {each["name"] for each in found["chosen"]} == {"f1", "f4"}
    assert found["at"]["score"] > 0.8 > found["everything"]["score"]


def test_rows_of_a_group_are_on_one_side_where_a_network_holds_some_out(
    cli: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default penalty of networks is chosen by rows that are held out, of all rows and of each fold."""
    monkeypatch.setattr(base, "TrainingLength", lambda epochs, *rest: TrainingLength(2, *rest))
    parts, divide = list[tuple[set[int], ...]](), base.SparseEstimator._parts

    def divided(self: Any, rows: Any, seed: int, share: float) -> Any:
        found = divide(self, rows, seed, share)
        parts.append(tuple(set(part.groups.tolist()) for part in found))
        return found

    monkeypatch.setattr(base.SparseEstimator, "_parts", divided)
    options = ("--hidden", "4", "--features", "2", "--pairs", "1", "--folds", "3", "--jobs", "1", "--group", "animal")
    assert cli("select", "--data", table, *options, "--out", tmp_path).code == 0
    assert [len(training | held_out) for training, held_out in parts] == [30, 20, 20, 20]
    assert not any(training & held_out for training, held_out in parts)


def test_nothing_is_selected_from_noise(cli: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    columns: dict[str, Any] = {f"f{i}": [f"{v:.4f}" for v in rng.normal(size=60)] for i in range(8)}
    columns["label"] = rng.permutation(np.arange(60) % 2).tolist()
    path = write(tmp_path / "noise.csv", columns)
    ended = cli("select", "--data", path, "--fdr", "0.1", *FAST, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert "No feature is selected." in ended.out
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert (found["chosen"], found["at"], found["l1_at"]) == ([], None, None)


@pytest.fixture(scope="module")
def patients() -> dict[str, Any]:
    return made_patients()


def test_survival(cli: Any, patients: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "patients.csv", patients)
    survival = ("--time", "months", "--event", "relapse")
    ended = cli("select", "--data", path, *survival, "--features", "2", *FAST, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert found["measure"] == "concordance"
    assert {each["name"] for each in found["chosen"]} == {"gene 1", "gene 4"}
    assert found["columns"] == 6
    for key in ("at", "l1_at", "everything"):
        assert 0.65 < found[key]["score"] < 1
    assert max(point["score"] for point in found["curve"]) > 0.65
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("Concordance over the number of features", "the linear Cox model under L1", "months", "relapse"):
        assert text in page
    rate = cli("select", "--data", path, *survival, "--fdr", "0.5", *FAST, "--json", "--out", tmp_path / "rate")
    assert {each["name"] for each in json.loads(rate.out)["chosen"]} == {"gene 1", "gene 4"}


@pytest.mark.parametrize("kind", ["classes", "numbers", "survival"])
def test_weights(cli: Any, genes: dict[str, Any], patients: dict[str, Any], tmp_path: Path, kind: str) -> None:
    """Rows of weight 0 are as none; what rows of a small weight say counts little."""
    columns = dict(patients if kind == "survival" else genes)
    target = {"survival": ("--time", "months", "--event", "relapse")}.get(
        kind, ("--label", "label", "--group", "animal")
    )
    rows, rng = len(columns["gene 0"]), np.random.default_rng(1)
    weights = rng.choice([0, 0.5, 1, 2], rows)
    if kind == "numbers":
        columns["label"] = [f"{float(v):.4f}" for v in columns["gene 5"]]
        weights = np.where(np.arange(rows) < rows // 2, weights, 1e-6)
        columns["label"][rows // 2 :] = columns["gene 6"][rows // 2 :]
    columns["count"] = weights.tolist()
    left = {name: [v for v, w in zip(values, weights, strict=True) if w] for name, values in columns.items()}
    found = []
    for name, own in (("all", columns), ("left", left)):
        path, out = write(tmp_path / f"{name}.csv", own), tmp_path / name
        ended = cli("select", "--data", path, *target, "--weight", "count", "--features", "1", *FASTEST, "--out", out)
        assert (ended.code, ended.err) == (0, "")
        found.append({**json.loads((out / "selection.json").read_text()), "seconds": 0, "data": None})
        assert "count" in (out / "report.html").read_text()
    assert found[0] == found[1]
    assert found[0]["rows"] == int((weights > 0).sum())
    assert "count" not in (tmp_path / "all" / "features.csv").read_text()
    if kind == "numbers":
        assert [each["name"] for each in found[0]["chosen"]] == ["gene 5"]
        assert found[0]["at"]["score"] > 0.99


def test_equal_weights_change_nothing(cli: Any, genes: dict[str, Any], selected: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "genes.csv", {**genes, "count": [3] * 120})
    options = ("--group", "animal", "--features", "2", "--weight", "count", *FAST)
    assert cli("select", "--data", path, *options, "--out", tmp_path / "out").code == 0
    found, wanted = (json.loads((folder / "selection.json").read_text()) for folder in (tmp_path / "out", selected))
    assert {**found, "seconds": 0, "data": None} == {**wanted, "seconds": 0, "data": None}


def test_what_was_read_is_said(cli: Any, genes: dict[str, Any], tmp_path: Path) -> None:
    rows = len(genes["label"])
    path = write(tmp_path / "genes.csv", {"": [*range(rows)], "name": [f"n {i}" for i in range(rows)], **genes})
    ended = cli("select", "--data", path, "--features", "1", *FASTEST, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    assert "  left out: name (its text is different in most rows (120 values in 120 rows))" in ended.out.splitlines()
    assert "  The column without a name holds whole numbers, as the index of a data frame does" in ended.out
    assert "one answer for all rows 56.7 %" in ended.out
    record = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert record["data"]["parts"][0]["classes"] == {"ill": 52, "well": 68}
    assert "Columns that are not read: name" in (tmp_path / "out" / "report.html").read_text()


def test_counts_are_numbers_where_they_are_said_to_be(cli: Any, genes: dict[str, Any], tmp_path: Path) -> None:
    counts = [round(10 + 3 * float(value)) for value in genes["gene 5"]]
    counts[0] = 40  # a class of one row
    path, out = write(tmp_path / "genes.csv", {**genes, "label": counts}), tmp_path / "out"
    cli.assert_refused(
        cli("select", "--data", path, *FASTEST, "--out", out), "needs two rows of the class", "give --task regression"
    )
    ended = cli("select", "--data", path, "--task", "regression", "--features", "1", *FASTEST, "--out", out)
    assert (ended.code, ended.err) == (0, "")
    assert [each["name"] for each in json.loads((out / "selection.json").read_text())["chosen"]] == ["gene 5"]


def test_a_folder_that_is_taken(cli: Any, selected: Path, finished: Path, table: Path) -> None:
    command = ("select", "--data", table, "--group", "animal", "--features", "2", *FAST, "--out")
    before = cli.contents(selected)
    cli.assert_refused(cli(*command, selected), "already holds a selection", "--overwrite")
    assert cli.contents(selected) == before
    cli.assert_refused(cli(*command, finished / "classes"), "holds a run of torchlasso")
    cli.assert_refused(cli(*command, table), "is a file")
    cli.assert_refused(cli(*command, ""), "--out must name a folder")


def test_without_matplotlib_the_page_has_no_pictures(
    cli: Any, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str = "matplotlib") -> Any:
        raise ImportError("drawing needs matplotlib")

    monkeypatch.setattr(_style, "module", missing)
    options = ("--group", "animal", "--features", "2", *FAST, "--out", tmp_path / "out")
    assert cli("select", "--data", table, *options).code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" not in page
    assert "2. gene 2" in page


def test_the_same_seed_gives_the_same_selection(selected: Path, table: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["select", "--data", str(table), "--group", "animal", "--features", "2", *FAST, "--out", str(tmp_path)])
    first, again = (json.loads((path / "selection.json").read_text()) for path in (selected, tmp_path))
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
