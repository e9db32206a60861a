"""Writes reports of sections of viewers, and reads them back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.watched import Row, row
from xapi_etl_processor.cli import main

LESSON = "https://videos.example.edu/lesson"
DAY = 86_400

Report = Callable[..., Path]


def viewing(user: str, at: int, *stretches: tuple[int, int], **more: Any) -> list[Row]:
    """A session of a 100-second video: each stretch played and paused, with seeks between them."""
    here = {
        "user_id": user,
        "session_id": f"{user}-{at}",
        "video_url": LESSON,
        "video_title": "The lesson",
        "video_length": 100,
        **more,
    }
    rows = []
    position = 0
    for start, end in stretches:
        if start != position:
            seek = {"video_seek_from": position, "video_seek_to": start}
            rows.append(row(at, "seeked", **here, **seek))
        rows.append(row(at + 1, "played", video_time=start, **here))
        at += 2 + end - start
        position = end
        rows.append(row(at, "paused", video_time=end, **here))
    return rows


def write(folder: Path, section: str, *options: str) -> Path:
    """Run the command for a section; the file that it wrote."""
    page = folder / "report.html"
    assert main(["report", "--section", section, "-o", str(page), *options]) == 0
    return page


def drawn(page: Path) -> dict[str, Any]:
    """What a page's script draws."""
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def text(page: Path) -> str:
    """A page's own text, without its script and markup."""
    body = page.read_text(encoding="utf-8").partition('<template id="video">')[0]
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", body, flags=re.DOTALL).split())
