"""What there is instead, where a request covers nothing: advice, which never fails a command."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.objects import section_id, section_of
from xapi_etl_processor.storage.tables import FILES

SHOWN_SECTIONS = 3
"""Sections that are named. Our choice."""

_EMPTY = "the ledger has no objects yet"

_Days = dict[str, tuple[str, str]]
"""Section -> the first and the last day in its objects' keys, '' if those name none."""


def instead(
    clickhouse: ClickHouse, wanted: Sequence[int | str] = (), deadline: Deadline = FOREVER
) -> str:
    """What the ledger has, in words: sections with the nearest names, and first and last day."""
    try:
        days = _days(clickhouse, deadline)
    except XapiEtlError:
        return "the ledger cannot be asked what there is"
    if not days:
        return _EMPTY
    names = [str(section) for section in wanted]
    missing = next((name for name in names if name not in days), "")
    found = [_nearest(missing, days)] if missing else []
    asked = [days[name] for name in names if name in days] or days.values()
    if dated := [(first, last) for first, last in asked if first]:
        first, last = min(first for first, _ in dated), max(last for _, last in dated)
        found.append(f"days from {first} to {last}")
    return f"the ledger has {', and '.join(found) or 'objects without a day in their names'}"


def unknown(clickhouse: ClickHouse, section: str) -> str:
    """A warning, if the ledger has no object of a section; else ''."""
    if not section:
        return ""
    name = str(section_id(section))
    try:
        days = _days(clickhouse, FOREVER)
    except XapiEtlError:
        return ""
    if name in days:
        return ""
    there = f"the ledger has {_nearest(name, days)}" if days else _EMPTY
    return f"no object of section {name!r} was loaded: {there}"


def _nearest(missing: str, days: Iterable[str]) -> str:
    spelled = {section.lower(): section for section in days if section}
    near = get_close_matches(missing.lower(), spelled, SHOWN_SECTIONS, cutoff=0.5)
    shown = [spelled[name] for name in near] or list(spelled.values())[:SHOWN_SECTIONS]
    named = f"; nearest: {', '.join(shown)} ({len(spelled)} in all)" if shown else ""
    return f"no section {missing}{named}"


def _days(clickhouse: ClickHouse, deadline: Deadline) -> _Days:
    rows = clickhouse.query(
        "SELECT section, minIf(day, day != ''), maxIf(day, day != '') FROM"
        f" (SELECT {section_of('key')} AS section,"
        " extract(key, '([0-9]{4}-[0-9][0-9]-[0-9][0-9])T') AS day"
        f" FROM {clickhouse.database}.{FILES}) GROUP BY section ORDER BY section",
        deadline=deadline,
    )
    return {section: (first, last) for section, first, last in rows}
