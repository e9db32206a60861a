"""How much of what a bulk request covers is in the ledger."""

from __future__ import annotations

from typing import Any, NamedTuple

from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.objects import CATEGORY, DAY, SECTION
from xapi_etl_processor.storage.tables import FILES

_ABOVE = r"^(?:.*?/)?section/[^/]+/"
_KEY_DAY = "extract(replaceRegexpOne(key, %(above)s, ''), %(day)s)"
"""The day of a key: see `objects.day_of`."""


class Loaded(NamedTuple):
    """Objects in the ledger, and statements of all their versions."""

    objects: int
    statements: int


def loaded(clickhouse: ClickHouse, request: BulkRequest, since: float) -> Loaded:
    """What the ledger has of the request's objects; with `force`, only what was loaded since then,
    in seconds since 1970. For a request with dates, it counts only keys that name a day.
    """
    conditions = ["bucket = %(bucket)s", "startsWith(key, %(prefix)s)"]
    values: dict[str, Any] = {"bucket": request.bucket, "prefix": request.prefix}
    if request.sections:
        conditions.append("extract(key, %(section)s) IN %(sections)s")
        values |= {"section": SECTION, "sections": tuple(map(str, request.sections))}
    if request.categories:
        conditions.append("extract(key, %(category)s) IN %(categories)s")
        values |= {"category": CATEGORY, "categories": request.categories}
    for name, comparison in (("start_date", ">="), ("end_date", "<=")):
        if name in request.scope:
            conditions.append(f"{_KEY_DAY} {comparison} %({name})s")
            values |= {"above": _ABOVE, "day": DAY, name: request.scope[name]}
    if "start_date" in request.scope or "end_date" in request.scope:
        conditions.append(f"{_KEY_DAY} != ''")
    if request.force_reprocess:
        conditions.append("processed_at >= fromUnixTimestamp64Milli(toInt64(%(since)s))")
        values["since"] = round(since * 1000)
    ((objects, statements),) = clickhouse.query(
        "SELECT uniqExact(key), sum(video + other)"
        f" FROM {clickhouse.database}.{FILES} FINAL WHERE {' AND '.join(conditions)}",
        values,
    )
    return Loaded(objects, statements)
