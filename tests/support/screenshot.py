"""Takes the picture of the report that README.md shows, after `make run`.

python -m tests.support.screenshot docs/report.png
"""

from __future__ import annotations

import shutil
import sys

from playwright.sync_api import sync_playwright

from local import DEMO_REPORT


def take(picture: str) -> None:
    """Write a PNG of a video of the demo's first section: its findings, figures and curve."""
    page_file = DEMO_REPORT / "section-2001.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 960, "height": 1960})
        page.goto(f"{page_file.as_uri()}#v1")
        page.wait_for_function("() => document.querySelectorAll('#v1 svg').length === 4")
        page.evaluate("scrollTo(0, 0)")
        top = page.locator("#v1").bounding_box()
        end = page.locator("#v1 [data-chart=retention]").bounding_box()
        if not top or not end:
            raise SystemExit(f"{page_file} has no second video: run make run")
        height = end["y"] + end["height"] - top["y"]
        clip = {"x": 0, "y": top["y"], "width": 960, "height": height}
        page.screenshot(path=picture, clip=clip, full_page=True)  # type: ignore[arg-type]
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1])
