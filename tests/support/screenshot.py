"""Takes the picture of the report that README.md shows, after `make run`.

python -m tests.support.screenshot docs/report.png
"""

from __future__ import annotations

import shutil
import sys

from playwright.sync_api import sync_playwright

from local import DEMO_REPORT


def take(picture: str) -> None:
    """Write a PNG of a video of the demo: its findings, figures and curve."""
    page_file = DEMO_REPORT / "section-2001.html"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 960, "height": 1960})
        page.goto(f"{page_file.as_uri()}#v1")
        page.locator("#v1 .part:has(svg)").nth(3).wait_for()
        # What stands below the curve is left out, so that the video's box is the picture.
        left_out = "#v1 .part + .part, #v1 .part details { display: none; }"
        page.add_style_tag(content=f"{left_out} #v1 {{ padding: 1rem; border: 0; }}")
        page.locator("#v1").screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    take(sys.argv[1])
