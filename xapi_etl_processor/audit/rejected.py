"""Rejected lines that still count, though a row stays when a newer load accepts its line; and the
whole lines, read again from S3.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

from xapi_etl_processor.base.errors import S3Error
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import line_parts
from xapi_etl_processor.s3.objects import S3Object, object_at, section_id, section_of
from xapi_etl_processor.storage.learners import Learners
from xapi_etl_processor.storage.ledger import MAX_REJECTED_BYTES, as_bytes
from xapi_etl_processor.storage.tables import FILES, REJECTED, SOURCE_FILE
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.parse import WHITESPACE

PAGE_LINES = 10_000
"""Rejected lines that one query reads. Our choice."""

CURRENT = f"""\
SELECT source_file, source_etag, source_line, reason, line, rejected_at
FROM (
    SELECT *, row_number() OVER (
        PARTITION BY source_file, source_etag ORDER BY rejected_at DESC, source_line
    ) AS newest
    FROM {{database}}.{REJECTED} FINAL
) AS found
LEFT JOIN (
    SELECT {SOURCE_FILE} AS file,
        max(processed_at) AS loaded_at,
        argMax(etag, processed_at) AS etag, argMax(rejected, processed_at) AS rejected
    FROM {{database}}.{FILES} GROUP BY bucket, key
) AS loaded ON source_file = file
WHERE multiIf(
    ifNull(file, '') = '', true,
    source_etag = etag, newest <= rejected,
    rejected_at > loaded_at
)"""
"""The rejected lines that still count; docs/tables.md explains it.

Of an object's newest load, as many of the newest rows as that load rejected. Of another version,
those that were rejected after it: a load of it failed. Of an object that the ledger does not know,
all."""


class Rejected(NamedTuple):
    """A rejected line: where it stands, why, when, and as much of it as the table keeps."""

    source_file: str
    source_etag: str
    source_line: int
    reason: str
    rejected_at: datetime
    kept: bytes


_IS_CHOSEN = (
    f"(%(section)s = '' OR {section_of('source_file')} = %(section)s)"
    " AND positionCaseInsensitiveUTF8(reason, %(reason)s) > 0"
    " AND startsWith(source_file, %(source)s)"
    " AND (%(line)s = '' OR positionCaseInsensitive(line, %(line)s) > 0)"
)


@dataclass(frozen=True)
class Chosen:
    """Which rejected lines are meant: of objects whose key has this section and whose URI begins
    with `source`, with a part of their reason and of what is kept of them, both in any case.
    """

    section: str = ""
    reason: str = ""
    source: str = ""
    line: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the SQL."""
        section = str(section_id(self.section)) if self.section else ""
        return {**asdict(self), "section": section}


def by_reason(clickhouse: ClickHouse, chosen: Chosen) -> list[tuple[str, int, str, int]]:
    """Each reason with the number of its lines, and one of them: its object's URI and number."""
    return clickhouse.query(
        "SELECT reason, count(), argMax(source_file, at), argMax(source_line, at)"
        f" FROM (SELECT *, rejected_at AS at FROM ({_current(clickhouse)}))"
        f" WHERE {_IS_CHOSEN} GROUP BY reason ORDER BY count() DESC, reason",
        chosen.params,
    )


def rejected_lines(clickhouse: ClickHouse, chosen: Chosen) -> Iterator[Rejected]:
    """The rejected lines that still count, by object and line."""
    after = ("", "", 0)
    while True:
        rows = clickhouse.query(
            "SELECT source_file, source_etag, source_line, reason, rejected_at, line"
            f" FROM ({_current(clickhouse)}) WHERE {_IS_CHOSEN}"
            " AND (source_file, source_etag, source_line) > %(after)s"
            " ORDER BY source_file, source_etag, source_line LIMIT %(limit)s",
            {**chosen.params, "after": after, "limit": PAGE_LINES},
        )
        for row in rows:
            yield Rejected._make((*row[:-1], as_bytes(row[-1])))
        if len(rows) < PAGE_LINES:
            return
        after = rows[-1][:3]


def _current(clickhouse: ClickHouse) -> str:
    return CURRENT.format(database=clickhouse.database)


def whole_lines(lines: Iterator[Rejected], run: Run) -> Iterator[dict[str, Any]]:
    """The lines for export: each as its object has it now.

    If the object cannot be read, or is another version now, `line` is what the table keeps; `why`
    says so, and `whole` whether that is all of it. A line that names a forgotten learner is None,
    and so is any line where user ids are pseudonyms. One that is not UTF-8 is in `line_base64`.
    """
    run.connections.learners.refresh()
    for (uri, etag), group in groupby(lines, lambda one: (one.source_file, one.source_etag)):
        wanted = list(group)
        texts, why = _read(uri, etag, {one.source_line for one in wanted}, run)
        for one in wanted:
            yield _exported(one, texts.get(one.source_line), why, run.connections.learners)


def _read(uri: str, etag: str, numbers: set[int], run: Run) -> tuple[dict[int, bytes], str]:
    """These lines of this version of the object, trimmed; or none, and why."""
    found: dict[int, bytes] = {}
    described = read.describe(run.connections.s3, [object_at(uri)])
    with closing(read.bodies(run.connections.s3, described)) as bodies:
        for obj, body in bodies:
            first = 1
            try:
                if obj.etag and obj.etag != etag:
                    return {}, "the object was uploaded again since"
                for part in line_parts(obj, body, run.read_until):
                    for number in numbers.intersection(range(first, first + len(part))):
                        found[number] = part[number - first].strip(WHITESPACE)
                    first += len(part)
            except S3Error as error:
                return {}, str(error)
    return found, ""


def _exported(one: Rejected, text: bytes | None, why: str, learners: Learners) -> dict[str, Any]:
    whole = text is not None and len(text) <= MAX_LINE_BYTES
    if text is None:
        text = one.kept
        whole = 0 < len(text) < MAX_REJECTED_BYTES
    record: dict[str, Any] = {
        "source_file": one.source_file,
        "source_line": one.source_line,
        "reason": one.reason,
        "rejected_at": one.rejected_at.isoformat(timespec="milliseconds"),
    }
    if not learners.may_keep(text):
        return {**record, "line": None, "whole": False, "why": "withheld: see docs/privacy.md"}
    try:
        record["line"] = text.decode()
    except UnicodeDecodeError:
        record["line_base64"] = base64.b64encode(text).decode()
    return {**record, "whole": whole, "why": why}


def objects_with_rejected_lines(clickhouse: ClickHouse, chosen: Chosen) -> Sequence[S3Object]:
    """The objects that have rejected lines which still count."""
    rows = clickhouse.query(
        f"SELECT DISTINCT source_file FROM ({_current(clickhouse)}) WHERE {_IS_CHOSEN}"
        " ORDER BY source_file",
        chosen.params,
    )
    return [object_at(uri) for (uri,) in rows]
