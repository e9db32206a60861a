"""Writes reports to files: of one section, or of all with an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.report.figures import ALL_DAYS, Days, Section, read_section, sections
from xapi_etl_processor.report.findings import find
from xapi_etl_processor.report.page import index_page, section_page
from xapi_etl_processor.report.small_groups import hide

_LONGEST_STEM = 200
"""Of a file's name, in bytes. Our limit; most file systems' is 255, with the ending."""


@dataclass(frozen=True)
class Options:
    """What a report shows: groups from a size on, names of learners or none, under which title."""

    hide_below: int = 0
    learners: bool = False
    title: str = ""


def write_section(section: Section, page: Path, options: Options) -> Section:
    """Write a section's page; what it shows. Raises OSError."""
    findings = {video.url: find(video, options.hide_below) for video in section.videos}
    shown = hide(section, options.hide_below)
    if not options.learners:
        shown = replace(shown, learners=())
    _write(page, section_page(shown, findings, options.hide_below, options.title))
    return shown


def write_all(
    clickhouse: ClickHouse, folder: Path, options: Options, days: Days = ALL_DAYS
) -> Iterator[Path]:
    """Write a page for each section and an index of them, last; gives their paths."""
    folder.mkdir(exist_ok=True)
    written = []
    for name in sections(clickhouse, days):
        file = f"{_stem(name)}.html"
        section = read_section(clickhouse, name, days, with_learners=options.learners)
        written.append((quote(file), write_section(section, folder / file, options)))
        yield folder / file
    index = folder / "index.html"
    _write(index, index_page(written, options.hide_below))
    yield index


def _stem(section: str) -> str:
    # Not the name alone, which may be "..", or longer than a file's name can be.
    stem = f"section-{quote(section, safe='')}"
    if len(stem) <= _LONGEST_STEM:
        return stem
    digest = sha256(section.encode()).hexdigest()[:16]
    return f"{stem[: _LONGEST_STEM - len(digest) - 1]}-{digest}"


def _write(page: Path, text: str) -> None:
    if page.exists() and not page.is_file():  # such as /dev/stdout, which must not be replaced
        page.write_text(text, encoding="utf-8")
        return
    # Written beside it and then renamed, so that whoever opens the page never sees half of it.
    unfinished = page.with_name(f"{page.name}.unfinished")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(page)
    finally:
        unfinished.unlink(missing_ok=True)
