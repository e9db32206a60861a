"""What there is instead, where a request covers nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.deadlines import FOREVER, Deadline
from xapi_etl_processor.sources.objects import section_of
from xapi_etl_processor.storage.tables import FILES

SHOWN_SECTIONS = 3
"""Sections that are named. Our choice."""


def instead(
    clickhouse: ClickHouse, wanted: Sequence[int | str] = (), deadline: Deadline = FOREVER
) -> str:
    """What the ledger has, in words: the sections whose names are nearest to the wanted ones, and
    the first and the last day, of the wanted sections if it has them. Raises ClickHouseError.
    """
    days = _days(clickhouse, deadline)
    if not days:
        return "the ledger has no objects yet"
    names = [str(section) for section in wanted]
    missing = next((name for name in names if name not in days), "")
    sections = f"{_nearest(missing, days)}, and " if missing else ""
    asked = [days[name] for name in names if name in days] or days.values()
    first, last = min(first for first, _ in asked), max(last for _, last in asked)
    return f"the ledger has {sections}days from {first} to {last}"


def unknown(clickhouse: ClickHouse, section: str) -> str:
    """A warning, if the ledger has no object of a section; else ''. Raises ClickHouseError."""
    days = _days(clickhouse, FOREVER)
    if not section or section in days:
        return ""
    there = f"the ledger has {_nearest(section, days)}" if days else "the ledger has no objects yet"
    return f"no object of section {section!r} was loaded: {there}"


def _nearest(missing: str, days: Mapping[str, object]) -> str:
    spelled = {section.lower(): section for section in days}
    near = get_close_matches(missing.lower(), spelled, SHOWN_SECTIONS, cutoff=0.5)
    shown = [spelled[name] for name in near] or list(days)[:SHOWN_SECTIONS]
    return f"no section {missing}, but {', '.join(shown)} (of {len(days)})"


def _days(clickhouse: ClickHouse, deadline: Deadline) -> dict[str, tuple[str, str]]:
    """Of each section, the first and the last day in its objects' keys."""
    rows = clickhouse.query(
        "SELECT section, min(day), max(day) FROM"
        f" (SELECT {section_of('key')} AS section,"
        " extract(key, '(\\\\d{4}-\\\\d\\\\d-\\\\d\\\\d)T') AS day"
        f" FROM {clickhouse.database}.{FILES} WHERE day != '') GROUP BY section ORDER BY section",
        deadline=deadline,
    )
    return {section: (first, last) for section, first, last in rows}
