"""The page of a run in a browser: nothing goes wrong, nothing is fetched, it fits a phone, and its slider works."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.command_line import succeed
from torchlasso.html import document, matrix

playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright, which is missing")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("whole_pages")]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHORT = ("--batch-size", "256", "--epochs", "2", "--epochs-each", "1", "--points", "4", "--collapse", "1")
RUNS = {
    "training": (
        "train",
        "--data",
        "digits",
        "--model",
        "lenet-300-100",
        "--batch-size",
        "256",
        "--epochs",
        "2",
        "--compare",
        "dense,loss-term",
    ),
    "path": ("path", "--data", "digits", "--model", "lenet-5", *SHORT, "--lams", "0.001,0.1"),
}
OVERFLOW = "document.documentElement.scrollWidth - window.innerWidth"
SEEN = """
[...document.querySelectorAll('svg, img')].filter((drawing) => drawing.checkVisibility()).map((drawing) => {
  const box = drawing.getBoundingClientRect();
  return [box.width, box.height, drawing.tagName === 'IMG' ? drawing.naturalWidth : 1];
})
"""
POINTS = "[...document.querySelectorAll('.point')].flatMap((point, k) => point.checkVisibility() ? [k] : [])"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox"] if hasattr(os, "getuid") and os.getuid() == 0 else []
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def address_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """The address of the page of a run, by its name."""
    folder = tmp_path_factory.mktemp("browsed")

    def found(name: str) -> str:
        if not (folder / name).exists():
            succeed(*RUNS[name], "--out", folder / name)
        return (folder / name / "report.html").as_uri()

    return found


@pytest.fixture
def opened(browser: Any, address_of: Callable[[str], str]) -> Iterator[Callable[..., Any]]:
    """Open the page of a run; there must be no errors in the browser, and no requests besides the page itself."""
    troubles: list[str] = []
    asked: list[str] = []
    contexts = []

    def opened(name: str, **options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address_of(name))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []
    assert {url for url in asked if not url.startswith("data:")} <= {address_of(name) for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_all_figures_are_seen_and_fit(opened: Callable[..., Any], name: str) -> None:
    """On screens of any width, one page opened for all."""
    page = opened(name)
    for width in (320, 375, 1200):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate(OVERFLOW) <= 0
        drawings = page.evaluate(SEEN)
        assert len(drawings) >= (12 if name == "training" else 9)
        assert all(15 < box[0] <= width and box[1] > 4 and box[2] > 0 for box in drawings)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_those_of_the_system(opened: Callable[..., Any], scheme: str) -> None:
    page = opened("training", color_scheme=scheme)
    paper, ink = (page.evaluate(f"getComputedStyle(document.body).{what}") for what in ("backgroundColor", "color"))
    assert (sum(_numbers(paper)) > sum(_numbers(ink))) == (scheme == "light")
    label = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (sum(_numbers(paper)) > sum(_numbers(label))) == (scheme == "light")


def _numbers(colour: str) -> list[int]:
    return [int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def test_the_slider_shows_one_point_after_the_other(opened: Callable[..., Any]) -> None:
    page = opened("path")
    slider, mark = page.get_by_role("slider", name="Point"), page.locator("#mark")
    slider.focus()
    page.keyboard.press("Home")
    places, said = [], []
    for k in range(4):
        assert page.evaluate(POINTS) == [k]
        assert page.locator("#which").inner_text() == f"{k + 1} of 4"
        said.append(slider.get_attribute("aria-valuetext"))
        places.append((float(mark.get_attribute("cx")), mark.is_visible()))
        page.keyboard.press("ArrowRight")
    assert page.evaluate(POINTS) == [3]
    assert len(set(said)) == 4
    assert all((text or "").startswith(f"Point {k + 1} of 4: ") for k, text in enumerate(said))
    shown = [x for x, visible in places if visible]
    assert len(shown) >= 3
    assert shown == sorted(set(shown))


def test_the_slider_begins_at_the_chosen_point_whose_mark_it_is_at(opened: Callable[..., Any]) -> None:
    page = opened("path")
    assert page.locator(".point:visible h3").inner_text().endswith(", chosen")
    boxes = [page.locator(which).bounding_box() for which in ("#mark", "svg:has(#mark)")]
    assert boxes[1]["x"] < boxes[0]["x"] < boxes[1]["x"] + boxes[1]["width"]


def test_without_scripts_and_on_paper_the_chosen_point_is_seen_and_no_slider(opened: Callable[..., Any]) -> None:
    for page in (opened("path", java_script_enabled=False), opened("path")):
        page.emulate_media(media="print")
        assert page.locator(".point:visible h3").inner_text().endswith(", chosen")
        assert not page.locator("input").is_visible()
    page = opened("path", java_script_enabled=False)
    assert page.locator(".point:visible").count() == 1
    assert not page.locator("input").is_visible()


def test_on_paper_it_is_dark_on_light_and_no_wider(opened: Callable[..., Any]) -> None:
    for name in RUNS:
        page = opened(name, viewport={"width": 700, "height": 900}, color_scheme="dark")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate(OVERFLOW) <= 0


@pytest.mark.parametrize("count", [2, 10, 50])
def test_a_confusion_matrix_scrolls_in_its_own_box(browser: Any, count: int) -> None:
    names = [f"a class with the name {k}" for k in range(count)]
    counts = [[k * (k + i) % 7 * 100 if i != k else 1000 for i in range(count)] for k in range(count)]
    context = browser.new_context(viewport={"width": 320, "height": 700})
    page = context.new_page()
    page.set_content(document("a", matrix(names, counts, "class", "Confusion")))
    assert page.evaluate(OVERFLOW) <= 0
    box, own = page.evaluate("(box => [box.clientWidth, box.scrollWidth])(document.querySelector('.scroll'))")
    assert own > box or count == 2
    page.set_viewport_size({"width": 1200, "height": 700})
    box, own = page.evaluate("(box => [box.clientWidth, box.scrollWidth])(document.querySelector('.scroll'))")
    assert own <= box or count == 50
    page.set_viewport_size({"width": 718, "height": 1000})  # of a sheet
    page.emulate_media(media="print")
    assert page.evaluate(OVERFLOW) <= 0
    context.close()
