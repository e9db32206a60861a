"""Writes reports to files: of one section, or of all with an index."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.report.figures import Section, read_section, sections
from xapi_etl_processor.report.findings import find
from xapi_etl_processor.report.page import index_page, section_page
from xapi_etl_processor.report.small_groups import hide

_LONGEST_STEM = 200
"""Of a file's name, in bytes. Our limit; most file systems' is 255, with the ending."""


@dataclass(frozen=True)
class Options:
    """What a report is of: statements on or after a UTC day, groups from a size on, with names."""

    since: date | None = None
    hide_below: int = 0
    learners: bool = False


def write_section(clickhouse: ClickHouse, name: str, page: Path, options: Options) -> Section:
    """Write a section's page; what it shows. Raises OSError."""
    read = read_section(clickhouse, name, options.since, with_learners=options.learners)
    findings = {video.url: find(video, options.hide_below) for video in read.videos}
    section = hide(read, options.hide_below)
    _write(page, section_page(section, findings, options.hide_below))
    return section


def write_all(clickhouse: ClickHouse, folder: Path, options: Options) -> Iterator[Path]:
    """Write a page for each section and an index of them, last; gives their paths."""
    written = []
    for name in sections(clickhouse, options.since):
        file = f"{_stem(name)}.html"
        section = write_section(clickhouse, name, folder / file, options)
        written.append((quote(file), section))
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
    page.parent.mkdir(parents=True, exist_ok=True)
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
