"""The figure of the frontier: what its files hold, the same bytes for the same data, and what cannot be drawn."""

from __future__ import annotations

import builtins
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.figure
import pytest

from torchlasso.figures import Series, frontier, save

LEFT = (1.0, 0.5, 0.1, 0.02)
SERIES = (
    Series("validation of it", LEFT, (0.02, 0.021, 0.03, 0.2), (0.001, 0.001, 0.002, 0.02)),
    Series("test of it", LEFT, (0.025, 0.024, 0.035, 0.22)),
)


def draw(folder: Path, series: Any = SERIES, names: tuple[str, ...] = ("f.png", "f.svg"), **more: Any) -> list[Path]:
    paths = [folder / name for name in names]
    save(frontier(series, **{"measure": "validation error", **more}), *paths)
    return paths


@pytest.fixture
def axes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The axes of every file that is written."""
    found: list[Any] = []
    save = matplotlib.figure.Figure.savefig

    def saved(figure: Any, *args: Any, **kwargs: Any) -> None:
        found.extend(figure.axes)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saved)
    return found


def test_a_png_is_whole(tmp_path: Path) -> None:
    """The signature, every chunk with its checksum, and pixels enough for the size it says it has."""
    content = draw(tmp_path, names=("f.png",))[0].read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    place, chunks, pixels = 8, [], b""
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        data = content[place + 8 : place + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", content[place + 8 + length : place + 12 + length])[0]
        chunks.append(kind)
        pixels += data if kind == b"IDAT" else b""
        if kind == b"IHDR":
            width, height = struct.unpack(">II", data[:8])
        place += length + 12
    assert (chunks[0], chunks[-1]) == (b"IHDR", b"IEND")
    assert (width, height) == (1050, 630)
    assert len(zlib.decompress(pixels)) == height * (1 + 4 * width)


def test_an_svg_is_xml_with_the_labels_and_the_names_of_the_lines(tmp_path: Path) -> None:
    (path,) = draw(tmp_path, names=("f.svg",), dense=0.021, chosen=(0.1, 0.03), title="a <model> on b--c & d")
    assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    text = path.read_text(encoding="utf-8")
    for name in ("validation error", "weights left", "validation of it", "test of it", "dense", "chosen"):
        assert name in text, name
    assert "%" in text
    assert "<script" not in text


def test_a_line_a_band_a_level_and_a_mark_are_drawn(tmp_path: Path, axes: list[Any]) -> None:
    draw(tmp_path, names=("f.svg",), dense=0.021, chosen=(0.1, 0.03), title="from dense to sparse")
    (drawn,) = axes
    first, second, level, mark = drawn.lines
    assert list(first.get_xdata()) == list(second.get_xdata()) == list(LEFT)
    assert list(first.get_ydata()) == pytest.approx([2.0, 2.1, 3.0, 20.0])
    assert list(second.get_ydata()) == pytest.approx([2.5, 2.4, 3.5, 22.0])
    assert list(level.get_ydata()) == pytest.approx([2.1, 2.1])
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == pytest.approx((0.1, 3.0))
    (band,) = drawn.collections
    assert band.get_datalim(drawn.transData).y1 == pytest.approx(22.0)  # 20 and its standard error, 2
    assert first.get_color() != second.get_color()
    assert drawn.get_xscale() == "log"
    assert drawn.xaxis_inverted()
    assert drawn.get_title(loc="left") == "from dense to sparse"


def test_points_that_are_not_joined_are_marks_without_a_line() -> None:
    left, values = [1.0, 0.5, 0.1], [0.1, 0.3, 0.2]
    axes = frontier([Series("line", left, values), Series("marks", left, values, joined=False)])
    assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "None"]
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [3, 3]


def test_a_loss_is_not_in_per_cent(tmp_path: Path, axes: list[Any]) -> None:
    draw(tmp_path, names=("f.svg",), percent=False, measure="loss")
    assert list(axes[0].lines[0].get_ydata()) == [0.02, 0.021, 0.03, 0.2]
    assert axes[0].get_ylabel() == "loss"
    assert not any("%" in label.get_text() for label in axes[0].get_yticklabels())


@pytest.mark.parametrize(
    "values", [(0.2, 0.3, 0.4), (0.0, 0.0, 0.0), (0.0, 0.0, 0.3), (-2.0, -1.9, -1.2), (-1.0, 0.0, 1.0), (5.0,)]
)
def test_every_value_that_is_not_far_off_is_within_the_axes(
    tmp_path: Path, axes: list[Any], values: tuple[float, ...]
) -> None:
    """Losses may be below zero, such as the loss of a density; lower is better and is drawn below."""
    draw(tmp_path, [Series("it", LEFT[: len(values)], values)], names=("f.svg",), percent=False)
    low, high = axes[0].get_ylim()
    assert low < high
    assert all(low <= value <= high for value in values)


def test_much_worse_points_are_cut_off_so_that_the_others_can_be_distinguished(tmp_path: Path, axes: list[Any]) -> None:
    draw(tmp_path, [Series("it", LEFT, (0.01, 0.012, 0.014, 0.9))], names=("f.svg",))
    low, high = axes[0].get_ylim()
    assert low < 1.0 < 1.4 < high < 20


def test_a_point_without_a_weight_left_has_no_place_and_is_left_out(tmp_path: Path, axes: list[Any]) -> None:
    draw(tmp_path, [Series("it", (1.0, 0.1, 0.0), (0.1, 0.2, 0.3))], names=("f.svg",))
    right, left = sorted(axes[0].get_xlim())
    assert 0 < right < 0.1 < 1.0 < left


def test_one_point_is_enough(tmp_path: Path) -> None:
    for path in draw(tmp_path, [Series("it", (1.0,), (0.1,), (0.01,)), Series("nothing", (), ())]):
        assert path.stat().st_size > 1000


def test_the_same_data_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for moment in ("0", "1700000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", moment)
        contents.append([path.read_bytes() for path in draw(tmp_path, title="once more", chosen=(0.1, 0.03))])
    assert contents[0] == contents[1]
    assert draw(tmp_path, SERIES[:1])[1].read_bytes() != contents[0][1]


def test_other_figures_are_not_changed(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    matplotlib.rcParams["svg.hashsalt"] = "another"
    try:
        draw(tmp_path)
        assert matplotlib.rcParams["svg.hashsalt"] == "another"
    finally:
        matplotlib.rcParams.update(before)


@pytest.mark.parametrize("series", [(), (Series("it", (), ()),)])
def test_nothing_to_draw(tmp_path: Path, series: Any) -> None:
    with pytest.raises(ValueError, match=r"^a frontier needs at least one point$"):
        draw(tmp_path, series)
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_matplotlib(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError) as raised:
        draw(tmp_path)
    assert str(raised.value) == "drawing needs matplotlib: pip install 'torchlasso[figures]'"
    assert not list(tmp_path.iterdir())


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in draw(tmp_path):
        path.write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"f\.png"):
        draw(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"f.png": "before", "f.svg": "before"}


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="xyz"):
        draw(tmp_path, names=("f.xyz",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("left", [(1.0,), (0.3, 0.28), (1.0, 0.4), (1.0, 1e-4), (0.5, 3e-8)])
def test_the_scale_of_shares_has_names_on_both_sides_of_all_points(left: tuple[float, ...]) -> None:
    axes = frontier([Series("it", left, [0.1] * len(left))])
    right, end = sorted(axes.get_xlim())
    named = [tick for tick in axes.get_xticks() if right <= tick <= end]
    assert min(named) <= min(left) <= max(left) <= max(named) <= 1
    assert len(named) < 10
