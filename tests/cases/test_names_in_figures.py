r"""Names out of data in figures: shown letter by letter, whatever matplotlib would make of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torchlasso as tl
from torchlasso.cli.main import main
from torchlasso.figures import Series

NAMES = ["from $5 to $9", r"$\frac$", "a$b$c", "price ($)", r"\$x$", "a_b^c"]
OPTIONS = ("--model", "mlp:width=4,depth=1", "--batch-size", "16", "--epochs", "1", "--epochs-each", "1")
OPTIONS += ("--points", "2", "--lams", "0.001,0.01")


def shown(axes: Any) -> list[str]:
    """Return all texts but formulas, as matplotlib draws them."""
    axes.figure.canvas.draw()
    texts = [axes.title, axes.xaxis.label, *axes.get_yticklabels(), *axes.texts]
    if axes.get_legend() is not None:
        texts += axes.get_legend().get_texts()
    found = [text._preprocess_math(text.get_text()) for text in texts]
    return [text for text, formula in found if not formula]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_features_layers_runs_and_lines(name: str, tmp_path: Path) -> None:
    w, epochs = torch.ones(3), [{"epoch": k, "loss": 1.0 / k} for k in (1, 2, 3)]
    model = nn.ModuleDict({name.replace(".", ""): nn.Linear(2, 2)})
    drawn = [
        tl.figures.inputs(w > 0, strengths=w, names=(name, "b", "c")),
        tl.figures.training({name: epochs, "other": epochs}),
        tl.figures.frontier([Series(name, [1.0, 0.1], [0.1, 0.2])]),
        tl.figures.layers(tl.report(model)),
    ]
    for axes in drawn:
        assert any(name in text for text in shown(axes))
        tl.figures.save(axes, tmp_path / "figure.svg")  # the canvas above is what becomes a .png
    histogram = tl.figures.weights(w, w, names=(name, "after"))
    assert shown(histogram)[-2:] == [f"{name}: 0.0 % zeros", "after: 0.0 % zeros"]


def test_a_control_character_is_escaped() -> None:
    axes = tl.figures.inputs(torch.ones(2) > 0, names=("\x1b[2Jcat", "\u202egnp"))
    assert {"\\x1b[2Jcat", "\\u202egnp"} <= set(shown(axes))


@pytest.mark.parametrize("name", ["x$b$ $\\frac$ \x1b[31m\n.csv", os.fsdecode(b"n\xff.csv")])
def test_the_name_of_a_file_of_data_in_the_figure_of_a_path(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{k % 7},{k % 5},{'yes' if k % 7 > 3 else 'no'}\n" for k in range(60))
    (tmp_path / name).write_text("from $5 to $9,b$\\bad$,y\n" + rows)
    for command in (("path", "--data", str(tmp_path / name), "--out", str(tmp_path / "run"), *OPTIONS),
                    ("report", str(tmp_path / "run"), "--html")):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(list(command))
        out, err = capsys.readouterr()
        assert (ended.value.code, err) == (0, "")
        assert "\x1b" not in out
    assert (tmp_path / "run" / "frontier.png").is_file()


def test_a_parquet_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / os.fsdecode(b"n\xff.parquet")
    with path.open("wb") as file:
        parquet.write_table(pa.table({"a": [0.0, 1.0, 2.0, 3.0] * 5, "y": [0, 1, 0, 1] * 5}), file)
    assert tl.data.load(str(path)).input_shape == (1,)
