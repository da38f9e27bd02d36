"""Draw the pictures of README.md from the runs that `make demo` leaves: python docs/make_images.py

The frontier is drawn from runs/demo-path, the part of a page is a screenshot of runs/demo/report.html in Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

RUNS, IMAGES = Path("runs"), Path(__file__).parent / "images"
VIEW = {"width": 960, "height": 690}


def main() -> None:
    """Write docs/images/frontier.png and docs/images/report.png."""
    page_file = RUNS / "demo" / "report.html"
    frontier = RUNS / "demo-path" / "frontier.png"
    for needed in (page_file, frontier):
        if not needed.exists():
            sys.exit(f"{needed} is missing: run make demo first")
    shutil.copy(frontier, IMAGES / "frontier.png")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=VIEW, color_scheme="light")
        page.goto(page_file.resolve().as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path=str(IMAGES / "report.png"))
        browser.close()


if __name__ == "__main__":
    main()
