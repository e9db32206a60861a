"""Summaries: what was watched of each video, worked out once and stored, so that a question over
all sections reads a small table. The view section_videos shows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from xapi_etl_processor.base.errors import (
    BadRequest,
    ClickHouseBusy,
    ClickHouseError,
    ClickHouseRefused,
    NothingDone,
)
from xapi_etl_processor.base.telemetry import shown
from xapi_etl_processor.clickhouse_client import REPORT_SECONDS
from xapi_etl_processor.modes.answer import SHOWN_FAILURES, add_failure, ending
from xapi_etl_processor.outcome import TIME_RAN_OUT, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import section_id
from xapi_etl_processor.storage import summaries
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import unknown
from xapi_etl_processor.storage.tables import EVENTS, SUMMARIES

CHUNK_ROWS = 1_000_000
"""Rows that are worked out at once, a larger section aside: some seconds, and less than 1.5 GB of
ClickHouse's memory (docs/scaling.md). Our choice."""

CHUNK_SECTIONS = 1000
"""Sections that are worked out at once. Bounds the query's text. Our limit."""

LARGE_ROWS = 10_000_000
"""Rows of a section from which on an answer warns of the memory. Our choice."""

PARAMETERS = ("section_id", "continuation_token")
"""What a payload may have beside `mode`."""

_COLUMNS = (
    "section_id, section, video_url, title, video_length, opened, played, sessions, completions,"
    " minutes_watched, minutes_played, average_share, first_day, last_day"
)

# One block, so that readers see all of a section's new rows or none.
_ONE_BLOCK = (
    "SETTINGS insert_deduplicate = 0, max_insert_threads = 1,"
    " min_insert_block_size_rows = 1000000000, min_insert_block_size_bytes = 0"
)


class SummaryRequest(NamedTuple):
    """The section to work out, '' for all; and the last one that an earlier request did, if any."""

    section: str = ""
    after: tuple[int, str] | None = None


class _Section(NamedTuple):
    section_id: int
    section: str
    rows: int


@dataclass
class _Done:
    """What was done so far. Its timer starts when it is created."""

    sections: int = 0
    rows: int = 0
    after: tuple[int, str] | None = None
    stop: Stop | None = None
    warnings: list[str] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def fail(self, sections: str, error: object) -> None:
        add_failure(self.failures, sections, error)


def read_summary_request(payload: Mapping[str, Any]) -> SummaryRequest:
    """The request in a payload; raises BadRequest naming the parameter."""
    if strange := sorted(map(repr, payload.keys() - {*PARAMETERS, "mode"})):
        raise BadRequest(f"unknown parameters {', '.join(strange)}: use {', '.join(PARAMETERS)}")
    section, token = payload.get("section_id"), payload.get("continuation_token")
    if isinstance(section, bool) or not isinstance(section, str | int | None) or section == "":
        raise BadRequest(f"section_id is {shown(section)}: the number or name of one is needed")
    if token is None:
        return SummaryRequest("" if section is None else str(section_id(str(section))))
    number, _, name = token.partition("/") if isinstance(token, str) else ("", "", "")
    if section is not None or not (number.isascii() and number.isdigit() and len(number) <= 20):
        raise BadRequest("continuation_token is that of another request: send it alone, as it came")
    return SummaryRequest(after=(int(number), name))


def run_summarize(
    request: SummaryRequest, run: Run, on_chunk: Callable[[int, int], None] = lambda *_: None
) -> dict[str, Any]:
    """Work out the summaries of one section or of all, and store them; returns the answer's body.

    Works out whole sections, up to CHUNK_ROWS at a time. Readers see a section's former rows until
    its new ones are complete. Of two runs at once, the one that began a section later counts.
    Calls `on_chunk` with the rows done so far and their total. Sections that ClickHouse refuses to
    work out are failures, and the others go on. Raises ClickHouseError if the sections cannot be
    listed, and NothingDone if time or ClickHouse did not allow a single one.
    """
    check_whole_results(run.connections.clickhouse)
    sections = _sections(request, run)
    done = _Done(after=request.after)
    total = sum(one.rows for one in sections)
    if request.section and not sections:
        none = unknown(run.connections.clickhouse, request.section)
        done.fail(request.section, none or "no statement about a video is stored of this section")
    longest = 0.0
    for chunk in _chunks(sections):
        began = time.monotonic()
        if run.read_until.seconds_left < longest:
            done.stop = TIME_RAN_OUT
            break
        _work_out(chunk, run, done)
        if done.stop:
            break
        longest = max(longest, time.monotonic() - began)
        on_chunk(done.rows, total)
    if done.stop and done.after == request.after:
        raise NothingDone(f"summarize: no section was worked out: {done.stop.text}")
    return _body(request, run, done)


def _sections(request: SummaryRequest, run: Run) -> list[_Section]:
    """The sections to work out, in order, each with its rows, repeats included. Those that are
    summarized are among them, even if they have no rows now.
    """
    clickhouse = run.connections.clickhouse
    database = clickhouse.database
    number, name = request.after or (0, "")
    rows = clickhouse.query(
        "SELECT section_id, name, sum(rows) FROM ("
        "SELECT section_id, toString(section) AS name, count() AS rows"
        f" FROM {database}.{EVENTS} GROUP BY section_id, name UNION ALL"
        " SELECT section_id, toString(section) AS name, toUInt64(0) AS rows"
        f" FROM {database}.{SUMMARIES} GROUP BY section_id, name)"
        " WHERE (%(section)s = '' OR name = %(section)s) AND (%(all)s OR section_id > %(number)s"
        " OR section_id = %(number)s AND name > %(name)s)"
        " GROUP BY section_id, name ORDER BY section_id, name",
        {
            "section": request.section,
            "all": int(request.after is None),
            "number": number,
            "name": name,
        },
        run.deadline,
    )
    return [_Section(*row) for row in rows]


def _chunks(sections: list[_Section]) -> Iterator[list[_Section]]:
    """The sections in groups that are worked out at once."""
    chunk: list[_Section] = []
    rows = 0
    for one in sections:
        if chunk and (rows + one.rows > CHUNK_ROWS or len(chunk) == CHUNK_SECTIONS):
            yield chunk
            chunk, rows = [], 0
        chunk.append(one)
        rows += one.rows
    if chunk:
        yield chunk


def _work_out(chunk: list[_Section], run: Run, done: _Done) -> None:
    """Store the summaries of these sections; what prevents it is noted."""
    first, *others = (one.section or str(one.section_id) for one in chunk)
    named = f"sections {first} to {others[-1]}" if others else f"section {first}"
    rows = sum(one.rows for one in chunk)
    if rows >= LARGE_ROWS:
        done.warnings.append(
            f"{named} has {rows:,} rows: ClickHouse needs about 0.5 GB for each million of them"
        )
    try:
        _store(chunk, run)
    except (ClickHouseBusy, ClickHouseRefused) as error:
        # It is out of memory, perhaps: the next sections may be smaller.
        done.fail(named, error)
    except ClickHouseError as error:
        if run.read_until.seconds_left <= 2 * REPORT_SECONDS:
            done.stop = TIME_RAN_OUT
        else:
            done.stop = Stop(StopReason.INSERT_FAILED, f"{named}: {error}")
        return
    else:
        done.sections += len(chunk)
        done.rows += rows
    done.after = chunk[-1][:2]


def _store(chunk: list[_Section], run: Run) -> None:
    clickhouse = run.connections.clickhouse
    database, deadline = clickhouse.database, run.read_until
    sections = [one[:2] for one in chunk]
    now = summaries.now(clickhouse, sections, deadline)
    # Safe to repeat: rows of the same time replace themselves.
    clickhouse.query(
        f"INSERT INTO {database}.{SUMMARIES} ({_COLUMNS}, summarized_at) {_ONE_BLOCK}"
        f" SELECT {_COLUMNS}, fromUnixTimestamp64Milli(toInt64(%(now)s), 'UTC')"
        f" FROM {database}.video_engagement WHERE (section_id, section) IN %(sections)s",
        {"now": now, "sections": tuple(sections)},
        deadline,
    )
    # Without this row, a section whose videos are all gone would keep its former ones.
    summaries.mark(clickhouse, sections, now, deadline)


def _body(request: SummaryRequest, run: Run, done: _Done) -> dict[str, Any]:
    if done.stop and done.stop.reason is not StopReason.OUT_OF_TIME:
        done.fail("", done.stop.text)
    number, name = done.after or (0, "")
    return {
        "success": not done.failures,
        "processing_mode": run.mode,
        "section_id": request.section or None,
        "sections": done.sections,
        "rows_read": done.rows,
        "warnings": done.warnings[:SHOWN_FAILURES],
        "failures": done.failures,
        "duration_ms": round((time.monotonic() - done.started) * 1000),
        **ending(done.stop, f"{number}/{name}"),
    }
