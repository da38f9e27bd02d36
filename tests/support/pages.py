"""Runs whose pages are tested, a parser of a page, and short pages for tests that do not look at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib import figure
from matplotlib.axes import Axes

import torchlasso.runs.path
from torchlasso.figures import Series
from torchlasso.runs.page import writing
from torchlasso.runs.page.configuration import configuration_section
from torchlasso.runs.page.won import won_section

SMALL = ("--model", "mlp:width=8,depth=1", "--batch-size", "16", "--lr", "0.05")
IMAGES = ("--data", "digits", "--batch-size", "256", "--lr", "0.01")
LONGER = ("--batch-size", "32")  # enough steps for the weights of constant pixels to become zero
BY_LAM = ("--points", "4", "--lams", "0.01,0.3", "--collapse", "1", "--validation", "0.25", "--choose", "best")
FEW = ("--epochs", "1", "--epochs-each", "1", "--points", "3", "--lams", "0.001,0.1", "--collapse", "1")
RUNS = {
    "images": ("train", *IMAGES, *LONGER, "--model", "lenet-300-100", "--epochs", "3", "--lam", "0.004"),
    "convolutions": ("train", *IMAGES, "--model", "lenet-5", "--epochs", "2", "--lam", "0.005", "--over", "filters"),
    "refit": ("train", "--data", "{tables}/classes.csv", *SMALL, "--epochs", "3", "--lam", "0.05", "--refit", "2"),
    "path": ("path", "--data", "{tables}/classes.csv", *SMALL, "--epochs", "3", "--epochs-each", "2", *BY_LAM),
    "path of images": ("path", *IMAGES, *LONGER, "--model", "mlp:width=12,depth=1", *FEW),
}
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """The content of a page; every tag has to be closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "script", "svg"} & set(self.open):
            return
        self.text += data if data.strip() else " "
        if "h2" in self.open:
            self.headings[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def page_of(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


@contextmanager
def short_pages() -> Iterator[None]:
    """Draw little of pages and frontiers, which takes longer than it takes to train small models."""
    with pytest.MonkeyPatch.context() as patch:
        short = dict(enumerate((won_section, configuration_section)))
        patch.setattr(writing, "sections", lambda: short)
        patch.setattr(torchlasso.runs.path, "frontier", _small_frontier)
        yield


def _small_frontier(series: Sequence[Series], **_: object) -> Axes:
    """Draw the points of a path and nothing around them: other points still give other bytes."""
    axes: Axes = figure.Figure(figsize=(1, 1)).subplots()
    axes.set_axis_off()
    for each in series:
        axes.plot(each.left, each.values)
    return axes
