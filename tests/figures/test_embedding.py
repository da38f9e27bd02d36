"""Figures within a page: they take its colours, and leave its other figures alone."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

import torchlasso as tl
from torchlasso.figures._embedding import embedded, page_axes, pictured, places

SERIES = [tl.figures.Series("it", [1.0, 0.1, 0.01], [0.02, 0.03, 0.9]), tl.figures.Series("other", [1.0], [0.1])]


@pytest.fixture
def axes() -> Any:
    return tl.figures.frontier(SERIES, page_axes(), chosen=(0.1, 0.03))


def test_it_is_a_figure_of_the_page_s_colours_with_its_text_as_text(axes: Any) -> None:
    text = embedded(axes, "f", 'error from "2 %" & more')
    root = ElementTree.fromstring(text)
    assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", 'error from "2 %" & more')
    assert root.get("width") is root.get("height") is None
    assert not re.search("#[0-9a-f]{6}|https?:|DejaVu|<style|<metadata|<!--", text)
    assert {"var(--ink)", "var(--soft)", "var(--blue)", "var(--orange)"} <= set(re.findall(r"var\(--\w+\)", text))
    assert {"weights left (log scale)", "it", "other", "chosen"} <= {part.text for part in root.iter("text")}


def test_figures_of_one_page_do_not_share_ids_and_refer_to_their_own(axes: Any) -> None:
    seen: set[str] = set()
    for name in ("a", "b"):
        text = embedded(axes, name, "it")
        ids = re.findall(r'\bid="([^"]*)"', text)
        assert len(ids) == len(set(ids))
        assert not seen & set(ids)
        seen |= set(ids)
        assert set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text)) <= {(i, "") for i in ids} | {
            ("", i) for i in ids
        }


def test_the_same_data_make_the_same_text() -> None:
    first, second = (embedded(tl.figures.frontier(SERIES, page_axes()), "a", "it") for _ in range(2))
    assert first == second


def test_the_places_of_points_are_where_their_marks_are(axes: Any) -> None:
    text = embedded(axes, "f", "it")
    marks = [(float(x), float(y)) for x, y in re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', text)]
    found = places(axes, [(1.0, 2.0), (0.1, 3.0)])
    for place in found:
        assert min(abs(x - place[0]) + abs(y - place[1]) for x, y in marks) < 0.2
    assert found[0][0] < found[1][0]
    (off,) = places(axes, [(0.01, 90.0)])  # far worse than the others, so that it left the figure
    assert 0 < off[1] < found[1][1]


def test_pictures_are_as_large_as_there_is_room_for() -> None:
    for shape, size in (((4, 6), (48, 32)), ((300, 900), (900, 300)), ((10, 200), (600, 30))):
        text = pictured(torch.zeros(*shape, 4, dtype=torch.uint8), "nothing")
        assert f'alt="nothing" width="{size[0]}" height="{size[1]}"' in text
