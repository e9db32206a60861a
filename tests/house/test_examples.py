"""The example bundles: what their pages promise, and that the commands there work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.conftest import Ask
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main

pytestmark = pytest.mark.usefixtures("own_stream")

EXAMPLES = Path(__file__).parents[2] / "examples"
BUNDLES = sorted(EXAMPLES.glob("*/section/*/video/*.jsonl"))
FATES = ("video", "other", "blank", "rejected")


def table(page: Path) -> list[list[str]]:
    """The cells of the last table of a page, without its head."""
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    start = max(n for n, row in enumerate(rows) if row.startswith("|---"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[start + 1 :]]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.parts[-5])
def test_an_example_holds_what_its_page_says(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", str(bundle)]) == 0
    ((lines, *fates),) = table(bundle.parents[3] / "README.md")
    named = ", ".join(f"{count} {fate}" for count, fate in zip(fates, FATES, strict=True))
    assert capsys.readouterr().out.startswith(f"{lines} lines: {named}\n")


@pytest.mark.slow
def test_the_examples_are_loaded_once_and_show_what_was_watched(
    watching: Settings, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(BUNDLES) == 3
    for skipped in (0, 3):
        assert main(["event", *map(str, BUNDLES)]) == 0
        assert json.loads(capsys.readouterr().out)["files_skipped"] == skipped
    found = ask(
        "SELECT section, played, completions, round(minutes_watched, 2) FROM video_engagement"
        " ORDER BY section"
    )
    assert [[str(value) for value in row] for row in found] == table(EXAMPLES / "README.md")
    in_3001 = "WHERE section = '3001'"
    assert ask(f"SELECT count() FROM video_events {in_3001}") == [[12]]
    assert ask(f"SELECT count() FROM video_statements {in_3001}") == [[11]]


def test_the_examples_name_nobody() -> None:
    text = "".join(path.read_text() for path in BUNDLES)
    names = set(re.findall(r'"(?:name|mbox)": "([^"]*)"', text))
    assert all(re.fullmatch(r"(mailto:)?(learner-\d|admin)(@example\.org)?", one) for one in names)
    assert set(re.findall(r"://([^/\"]+)", text)) >= {"torus.example.edu", "videos.example.org"}
