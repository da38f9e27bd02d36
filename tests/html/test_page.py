"""The parts of a page: text is escaped, colours can be read, and pictures are PNG files."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from torchlasso.html import (
    PALETTE,
    Bar,
    beside,
    document,
    figure,
    grid,
    matrix,
    paragraph,
    picture,
    section,
    table,
    tiles,
)
from torchlasso.html.png import png
from torchlasso.html.shading import STRONGEST


def luminance(colour: str) -> float:
    """Of sRGB, as the guidelines on contrast (WCAG 2) define it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", sorted(PALETTE.keys() - {"paper", "line"}))
def test_colours_are_seen_on_the_paper(name: str, dark: bool) -> None:
    a, b = sorted(luminance(PALETTE[which][dark]) for which in (name, "paper"))
    assert (b + 0.05) / (a + 0.05) >= (4.5 if name in ("ink", "soft") else 3)


def test_text_is_escaped_everywhere() -> None:
    text, escaped = '<b> & "c"', "&lt;b&gt; &amp; &quot;c&quot;"
    made = [
        document(text, ""),
        section(text, "<p>x</p>"),
        paragraph(text),
        tiles([(text, text, text)]),
        table((text, text), [[text, Bar(0.5, text)]], text),
        figure("<svg></svg>", text),
        picture(1, 1, bytes(4), text),
        matrix((text, text), ((1, 2), (3, 4)), text, text),
    ]
    for part, times in zip(made, (2, 1, 1, 3, 5, 1, 1, 6), strict=True):
        assert part.count(escaped) == times, part
        assert text not in part


def test_a_document_lets_nothing_be_fetched_and_runs_a_script_only_if_it_has_one() -> None:
    plain, scripted = document("a", "<p>b</p>"), document("a", "<p>b</p>", "let c;")
    for page in (plain, scripted):
        assert page.startswith("<!doctype html>")
        assert '<html lang="en">' in page
        assert "default-src 'none'" in page
        assert not re.search(r"https?:|@import|url\(", page)
    assert "<script>let c;</script>" in scripted
    assert "script" not in plain


def test_a_table_names_its_rows_and_its_columns() -> None:
    text = table(("", "a"), [["first", "1"], ["second", Bar(0.25, "2")]], "Numbers", marked=[1])
    assert re.findall(r'<th scope="(\w+)">(\w*)</th>', text) == [
        ("col", ""),
        ("col", "a"),
        ("row", "first"),
        ("row", "second"),
    ]
    assert 'aria-label="Numbers"' in text
    assert '<tr class="marked"><th scope="row">second' in text
    assert 'style="width:25.00%"' in text
    assert "<thead>" not in table(("", ""), [["a", "b"]])


def test_a_matrix_is_shaded_by_the_shares_of_its_rows() -> None:
    text = matrix(("yes", "no"), ((9, 0), (300, 900)), "truth", "Confusion")
    assert re.findall(r'<th scope="(\w+)">(?:<span>)?(\w+)<', text) == [
        ("col", "truth"),
        ("col", "yes"),
        ("col", "no"),
        ("row", "yes"),
        ("row", "no"),
    ]
    cells = re.findall(r"<td(?: class=\"(\w+)\" style=\"--share: (\d+)%\")?>([\d,]*)</td>", text)
    assert [cell[2] for cell in cells] == ["9", "", "300", "900"]
    assert [cell[0] for cell in cells] == ["hit", "", "miss", "hit"]
    assert 0 < int(cells[2][1]) < int(cells[3][1]) < int(cells[0][1]) < 60
    assert "turned" in matrix(("a rather long name", "b"), ((1, 0), (0, 1)), "", "")


def test_numbers_are_read_on_the_darkest_shade() -> None:
    for dark in (False, True):
        for name in ("blue", "orange"):
            ink, paper, colour = (PALETTE[which][dark] for which in ("ink", "paper", name))
            parts = [
                round(STRONGEST / 100 * int(colour[i : i + 2], 16) + (1 - STRONGEST / 100) * int(paper[i : i + 2], 16))
                for i in (1, 3, 5)
            ]
            a, b = sorted(map(luminance, (ink, "#" + "".join(f"{part:02x}" for part in parts))))
            assert (b + 0.05) / (a + 0.05) >= 4.5


def test_empty_parts_take_no_space() -> None:
    assert section("a") == section("a", "", "") == grid() == grid("", "") == beside("") == ""
    assert "<dd" not in tiles([("a", "1", "")]).replace("<dd>1</dd>", "")


def test_a_png_has_its_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    with Image.open(io.BytesIO(png(5, 3, pixels.tobytes()))) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        assert np.array_equal(np.asarray(image), pixels)
    with pytest.raises(ValueError, match=r"^a picture of 5×3 has 60 numbers; got 59$"):
        png(5, 3, pixels.tobytes()[:-1])


def test_a_picture_is_in_the_page_at_the_given_size() -> None:
    text = picture(2, 1, bytes(8), "two pixels", scale=10)
    assert 'alt="two pixels" width="20" height="10"' in text
    data = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert base64.b64decode(data[0]) == png(2, 1, bytes(8))
