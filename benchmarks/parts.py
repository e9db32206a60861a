"""What do many inserts at once do to ClickHouse: parts, merges, and readers?

make bench-parts                          print the tables: about ten minutes
make bench-parts PARTS="--seconds 2"      the same, roughly, in three minutes
make bench-parts PARTS=--write            write docs/scaling.md

1, 4 and 16 writers insert 10, 1,000 and 20,000 rows at a time, into one month and into 36.
Meanwhile somebody reads the daily view of another section. Then merges are waited for. Last, a
section is read that lies in 1, 8, 64 and 256 parts of each month, before and after they are merged.

The engine is chDB, in this process and without a network: what is measured is the server's part,
not the loader's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any, NamedTuple

from chdb.state.sqlitelike import Connection

from benchmarks import data
from benchmarks.report import SCALING, machine, markdown, write
from benchmarks.watching import ROWS, SECTION
from local.clickhouse_server import ClickHouseServer
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.storage.tables import EVENTS, FILES
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import to_columns

COMMAND = "make bench-parts PARTS=--write"
BASE_ROWS = 100_000
"""Rows of the section that is read, in four months and one part each, before the writers begin;
they write into other months."""

READ_ROWS = 400_000
"""Rows that are read in `read_parts`."""

SECTIONS = 50
"""Other sections, which the inserted rows belong to."""

VIEW = f"SELECT * FROM section_daily WHERE section_id = {SECTION} ORDER BY day"
FINAL = f"SELECT verb, count() FROM {EVENTS} FINAL GROUP BY verb"
READ_PAUSE_SECONDS, WATCH_SECONDS = 0.5, 0.1
READS = 5
MOST_MERGING_SECONDS = 60
"""How long merges are waited for after the last insert."""

_INSERTING = (
    *("months", "rows an insert", "writers", "rows a second", "ms an insert"),
    *("parts made", "most in a month", "read before", "while loading"),
)
_READING = (
    *("parts in a month", "daily view", "count with `FINAL`"),
    *("optimized in", "daily view then", "count then"),
)


class Case(NamedTuple):
    """How many writers insert how many rows at a time, spread over how many months."""

    months: int
    rows: int
    writers: int


@dataclass
class Found:
    """What one case took and made, in seconds."""

    case: Case
    seconds: float = 0.0
    inserts: list[float] = field(default_factory=list)
    most_in_month: int = 0
    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)


class Bench:
    """An engine with the tables and views in a database, and statements to insert."""

    def __init__(self, server: ClickHouseServer, settings: Settings, most_rows: int) -> None:
        self.path, self.engine = server.path, server.engine
        self._use = f"USE {settings.clickhouse_database}"
        self.engine.query(self._use)
        lines = list(islice(data.statements(), most_rows))
        chunk = parse(lines, 1, Source("s3://bucket/key", "etag", "2001", 0, 0)).chunk
        columns: dict[str, Any] = to_columns(chunk)
        self._names = ", ".join(columns)
        self.engine.query(f"CREATE TABLE sample AS {EVENTS} ENGINE = Memory")
        client = ClickHouse(settings)
        client.insert("sample", columns)
        client.disconnect()

    def run(self, case: Case, seconds: float) -> Found:
        """Insert for that time; then wait for merges."""
        for table in (EVENTS, FILES):
            self.engine.query(f"TRUNCATE TABLE {table}")
        self._fill(0, BASE_ROWS)
        self._optimize()
        self._choose(case)
        found = Found(case, before=self._reads(VIEW))
        stop, started = Event(), time.monotonic()
        with ThreadPoolExecutor(case.writers + 2) as pool:
            others = [pool.submit(one, stop, found) for one in (self._read, self._watch)]
            writers = [
                pool.submit(self._write, started + seconds, found) for _ in range(case.writers)
            ]
            try:
                for writer in writers:
                    writer.result()
                found.seconds = time.monotonic() - started
                self._wait_for_merges()
            finally:
                stop.set()
            for other in others:
                other.result()
        return found

    def read_parts(self, parts: int) -> list[float]:
        """How long reading a section of READ_ROWS rows takes, the view and a count with FINAL, with
        so many parts in each of its months; then how long merging takes, and reading again.
        """
        self.engine.query(f"TRUNCATE TABLE {EVENTS}")
        self.engine.query(f"SYSTEM STOP MERGES {EVENTS}")
        for part in range(parts):
            self._fill(part, READ_ROWS // parts)
        before = [median(self._reads(sql)) for sql in (VIEW, FINAL)]
        self.engine.query(f"SYSTEM START MERGES {EVENTS}")
        optimizing = self._optimize()
        return [*before, optimizing, *(median(self._reads(sql)) for sql in (VIEW, FINAL))]

    def _fill(self, part: int, rows: int) -> None:
        """Rows in sessions of ten statements, in four months."""
        made = ROWS.format(section=SECTION, part=part, rows=rows, videos=40, viewers=4000)
        self.engine.query(made)

    def _optimize(self) -> float:
        settings = "SETTINGS optimize_skip_merged_partitions = 1"
        return _timed(self.engine, f"OPTIMIZE TABLE {EVENTS} FINAL {settings}")

    def _choose(self, case: Case) -> None:
        """Have the table `batch` hold what each insert of a case has."""
        month = "n % 36" if case.months > 1 else "26"
        self.engine.query("DROP TABLE IF EXISTS batch")
        self.engine.query(
            f"CREATE TABLE batch ENGINE = Memory AS SELECT {self._names} FROM (SELECT * REPLACE ("
            f" addMonths(toDateTime64('2021-01-15 12:00:00', 3, 'UTC'), {month}) + n % 999983"
            f" AS timestamp, {SECTION} + 1 + n % {SECTIONS} AS section_id,"
            " toString(section_id) AS section)"
            f" FROM (SELECT *, rowNumberInAllBlocks() AS n FROM sample LIMIT {case.rows}))"
            f" SETTINGS max_block_size = {case.rows}, max_threads = 1"
        )

    def _write(self, end: float, found: Found) -> None:
        columns = self._names.replace("event_id", "toString(generateUUIDv4())")
        insert = (
            f"INSERT INTO {EVENTS} ({self._names}) SELECT {columns} FROM batch SETTINGS"
            f" async_insert = 0, max_threads = 1, max_block_size = {found.case.rows}"
        )
        ledger = (
            f"INSERT INTO {FILES} (bucket, key, etag, processed_at)"
            " VALUES ('b', toString(generateUUIDv4()), '', now())"
        )
        with self._connection() as engine:
            while time.monotonic() < end:
                found.inserts.append(_timed(engine, insert))
                engine.query(ledger)

    def _read(self, stop: Event, found: Found) -> None:
        with self._connection() as engine:
            while not stop.wait(READ_PAUSE_SECONDS):
                found.during.append(_timed(engine, VIEW))

    def _watch(self, stop: Event, found: Found) -> None:
        question = (
            "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active"
            f" AND database = currentDatabase() AND table = '{EVENTS}' GROUP BY partition)"
        )
        with self._connection() as engine:
            while not stop.wait(WATCH_SECONDS):
                found.most_in_month = max(found.most_in_month, *_numbers(engine, question))

    def _wait_for_merges(self) -> None:
        """Wait until no merge has run for a second."""
        started = last = time.monotonic()
        while time.monotonic() < min(last + 1, started + MOST_MERGING_SECONDS):
            if _numbers(self.engine, "SELECT count() FROM system.merges") != [0]:
                last = time.monotonic()
            time.sleep(WATCH_SECONDS)

    def _reads(self, sql: str) -> list[float]:
        return [_timed(self.engine, sql) for _ in range(READS)]

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        engine = Connection(self.path)
        engine.query(self._use)
        yield engine
        engine.close()


def _timed(engine: Connection, sql: str) -> float:
    started = time.monotonic()
    engine.query(sql)
    return time.monotonic() - started


def _numbers(engine: Connection, sql: str) -> list[int]:
    answer = engine.query(sql, "TSV").bytes().decode()
    return [int(value) for value in answer.split()]


def inserting(results: Sequence[Found]) -> str:
    """What writers did, and what they and readers felt. An insert makes a part for each month that
    it touches.
    """
    rows = [
        (
            *(f"{number:,}" for number in found.case),
            f"{len(found.inserts) * found.case.rows / found.seconds:,.0f}",
            f"{median(found.inserts) * 1000:,.0f}",
            f"{len(found.inserts) * min(found.case.rows, found.case.months):,}",
            f"{found.most_in_month:,}",
            _ms(median(found.before)),
            _ms(median(found.during)),
        )
        for found in results
    ]
    return markdown(_INSERTING, "r", rows)


def reading(readings: dict[int, list[float]]) -> str:
    """What readers gain when parts are merged, by the number of parts."""
    rows = [
        (f"{parts:,}", _ms(view), _ms(final), f"{optimizing:.1f} s", _ms(merged), _ms(counted))
        for parts, (view, final, optimizing, merged, counted) in readings.items()
    ]
    return markdown(_READING, "r", rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"


def main() -> int:
    """Measure, print the tables, and write them if asked; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10, help="how long each case inserts")
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args()
    results = []
    with TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder), user="default", password="").start()
        settings = Settings("127.0.0.1", server.port)
        migrate(settings)
        bench = Bench(server, settings, 20_000)
        for case in map(Case._make, product((1, 36), (10, 1_000, 20_000), (1, 4, 16))):
            print(case, file=sys.stderr)
            results.append(bench.run(case, options.seconds))
        readings = {parts: bench.read_parts(parts) for parts in (1, 8, 64, 256)}
        server.stop()
    tables = {"parts-inserting": inserting(results), "parts-reading": reading(readings)}
    print("\n".join(tables.values()))
    if options.write:
        write(SCALING, {"parts-measured-on": machine(), **tables}, COMMAND)
    return 0


if __name__ == "__main__":
    sys.exit(main())
