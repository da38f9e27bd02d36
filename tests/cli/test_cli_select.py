"""torchlasso select: the features of a table in order, their stability and accuracy, and bad input."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.command_line import succeed
from torchlasso.cli.main import main
from torchlasso.figures import _style
from torchlasso.runs.selecting import computing

pytestmark = pytest.mark.slow

NAMES = [f"gene {i}" for i in range(12)]
FAST = ("--pairs", "3", "--folds", "3")
FASTEST = ("--pairs", "2", "--folds", "2")


def write(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture(scope="module", autouse=True)
def fewer_points() -> Iterator[None]:
    """Solve for fewer values of λ than a user's selection, whose number changes only how fine its curves are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(computing, "LAMS", 10)
        patch.setattr(computing, "THRESHOLDS", 20)
        yield


@pytest.fixture(scope="module")
def genes() -> dict[str, Any]:
    """120 rows of 30 animals: genes 2 and 7 decide the class; 3 is nearly 2, 8 a copy of 0, 9 constant."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, len(NAMES)))
    x[:, 3] = x[:, 2] + 0.2 * rng.normal(size=120)
    x[:, 8], x[:, 9] = x[:, 0], 4.0
    columns: dict[str, Any] = {name: [f"{value:.5f}" for value in x[:, i]] for i, name in enumerate(NAMES)}
    columns["animal"] = [f"m{i // 4}" for i in range(120)]
    columns["label"] = np.where(x[:, 2] - 0.8 * x[:, 7] + 0.3 * rng.normal(size=120) > 0, "ill", "well").tolist()
    return columns


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


def test_a_network(cli: Any, tmp_path: Path) -> None:
    """Only the product of two features says anything, which no linear model sees."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 6))
    columns: dict[str, Any] = {f"f{i}": [f"{value:.4f}" for value in x[:, i]] for i in range(6)}
    columns["label"] = (x[:, 1] * x[:, 4] > 0).astype(int).tolist()
    path = write(tmp_path / "product.csv", columns)
    options = ("--hidden", "16", "--features", "2", "--pairs", "1", "--folds", "2")
    ended = cli("select", "--data", path, *options, "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert {each["name"] for each in found["chosen"]} == {"f1", "f4"}
    assert found["at"]["score"] > 0.8 > found["everything"]["score"]


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
    """150 patients, of whom genes 1 and 4 say who is ill again sooner; most are observed for two years only."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 6))
    months = rng.exponential(24 * np.exp(x[:, 1] - x[:, 4]))
    columns: dict[str, Any] = {f"gene {i}": [f"{value:.4f}" for value in x[:, i]] for i in range(6)}
    columns["months"] = [f"{value:.2f}" for value in months.clip(max=24)]
    columns["relapse"] = (months < 24).astype(int).tolist()
    return columns


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
        found.append({**json.loads((out / "selection.json").read_text()), "seconds": 0})
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
    assert {**found, "seconds": 0} == {**wanted, "seconds": 0}


def no_event(columns: dict[str, Any]) -> None:
    columns["relapse"] = [0] * 150


def three_events(columns: dict[str, Any]) -> None:
    columns["relapse"] = [2, *columns["relapse"][1:]]


def words(columns: dict[str, Any]) -> None:
    columns["relapse"] = ["yes" if each else "no" for each in columns["relapse"]]


def a_negative_time(columns: dict[str, Any]) -> None:
    columns["months"] = ["-1.5", *columns["months"][1:]]


def one_event(columns: dict[str, Any]) -> None:
    columns["relapse"] = [1] + [0] * 149


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (no_event, ["column 'relapse' is 0 everywhere", "need an event"]),
        (three_events, ["columns 'relapse' and 'months'", "must be 0 or 1", "got 2"]),
        (words, ["column 'relapse' must hold 0 or 1", "an event; got"]),
        (a_negative_time, ["columns 'relapse' and 'months'", "at least 0", "got -1.5"]),
        (one_event, ["two rows with an event at least", "there is 1"]),
    ],
)
def test_bad_survival(
    cli: Any, patients: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], names: list[str]
) -> None:
    columns = dict(patients)
    change(columns)
    path, out = write(tmp_path / "bad.csv", columns), tmp_path / "out"
    cli.assert_refused(
        cli("select", "--data", path, "--time", "months", "--event", "relapse", *FAST, "--out", out), *names
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--features", "0"], ["--features must be at least 1", "got 0"]),
        (["--features", "11"], ["--features 11", "10 features that are neither constant nor copies", "of 12"]),
        (["--features", "2", "--fdr", "0.1"], ["--features and --fdr exclude each other"]),
        (["--fdr", "0"], ["--fdr must be a share", "got 0"]),
        (["--fdr", "2"], ["--fdr must be a share", "got 2"]),
        (["--folds", "1"], ["--folds must be at least 2"]),
        (["--pairs", "0"], ["--pairs must be at least 1"]),
        (["--jobs", "0"], ["--jobs must be at least 1, or -1"]),
        (["--hidden", "0"], ["--hidden must be widths of at least 1"]),
        (["--hidden", "wide"], ["--hidden takes numbers separated by commas, as in 64,32"]),
        (["--seed", "-1"], ["--seed must be at least 0"]),
        (["--label", "kind"], ["no column 'kind'"]),
        (["--group", "cage"], ["no column 'cage' for groups"]),
        (["--weight", "count"], ["no column 'count' for the weights"]),
        (["--weight", "animal"], ["the column 'animal' cannot be both the weights and something else"]),
        (["--weight", "label"], ["the column 'label' cannot be both the weights and something else"]),
        (["--weight", "gene 2"], ["column 'gene 2' has -", "a weight is a finite number, at least 0"]),
        (["--time", "gene 1"], ["--time needs --event"]),
        (["--event", "label"], ["--event needs --time"]),
        (["--time", "gene 1", "--event", "gene 2", "--label", "label"], ["--label and --time exclude each other"]),
        (["--time", "gene 1", "--event", "death", "--ignore", "label"], ["no column 'death'"]),
        (["--time", "days", "--event", "gene 1", "--ignore", "label"], ["no column 'days'"]),
    ],
)
def test_bad_options(cli: Any, table: Path, tmp_path: Path, options: list[str], names: list[str]) -> None:
    out = tmp_path / "out"
    group = [] if "--group" in options else ["--group", "animal"]
    cli.assert_refused(cli("select", "--data", table, *group, "--out", out, *options), *names)
    assert not out.exists()


def one_class(columns: dict[str, Any]) -> None:
    columns["label"] = ["ill"] * 120


def one_row_of_a_class(columns: dict[str, Any]) -> None:
    columns["label"] = ["ill"] * 119 + ["well"]


def one_animal(columns: dict[str, Any]) -> None:
    columns["animal"] = ["m1"] * 120


def text(columns: dict[str, Any]) -> None:
    columns["gene 4"] = ["high", *columns["gene 4"][1:]]


def nothing_but_constants(columns: dict[str, Any]) -> None:
    columns.update({name: ["1"] * 120 for name in NAMES})


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (one_class, ["all labels are 'ill'", "at least 2 classes"]),
        (one_row_of_a_class, ["two groups of the class 'well' at least", "there is 1"]),
        (one_animal, ["two groups of the class", "there is 1"]),
        (text, ["column 'gene 4' has 'high' in row 0", "numbers in most other rows"]),
        (nothing_but_constants, ["all 12 columns are constant"]),
    ],
)
def test_bad_tables(
    cli: Any, genes: dict[str, Any], tmp_path: Path, change: Callable[[dict[str, Any]], None], names: list[str]
) -> None:
    columns = dict(genes)
    change(columns)
    path = write(tmp_path / "bad.csv", columns)
    ended = cli("select", "--data", path, "--group", "animal", "--features", "2", *FAST, "--out", tmp_path / "out")
    cli.assert_refused(ended, *names)


def test_images_are_not_a_table(cli: Any, tmp_path: Path) -> None:
    cli.assert_refused(cli("select", "--data", "digits", "--out", tmp_path / "out"), "(1, 8, 8)", "needs a table")


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
