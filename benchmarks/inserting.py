"""Writers that insert at the same time into the tables of the schema, and what ClickHouse makes of
it: parts, merges, and what readers feel.

The engine is chDB, in this process and without a network: what is measured is the server's part,
not the loader's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

from chdb.state.sqlitelike import Connection

from benchmarks import data
from benchmarks.watching import ROWS, SECTION
from local.clickhouse_server import ClickHouseServer
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.storage.tables import EVENTS, FILES
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import to_columns

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

TOO_MANY_PARTS = "TOO_MANY_PARTS"
_ID_LENGTH = 36
_EVENTS = (
    *("MergeTreeDataWriterBlocks", "Merge", "MergeSourceParts", "MergedRows"),
    *("MergedUncompressedBytes", "MergeTotalMilliseconds"),
    *("DelayedInserts", "DelayedInsertsMilliseconds"),
)


@dataclass(frozen=True)
class Case:
    """How many writers insert how many rows at a time, spread over how many months."""

    writers: int
    rows: int
    months: int


@dataclass
class Found:
    """What one case took and made; times in seconds unless their names say otherwise."""

    case: Case
    seconds: float = 0.0
    inserts: list[float] = field(default_factory=list)
    ledger: list[float] = field(default_factory=list)
    refused: int = 0
    most_in_month: int = 0
    most_active: int = 0
    merging: float = 0.0
    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)
    """What the server counted, by the names of `system.events`."""

    @property
    def rows_per_second(self) -> float:
        """Rows that all writers together stored in a second."""
        return len(self.inserts) * self.case.rows / self.seconds

    @property
    def insert_ms(self) -> float:
        """The median insert of a batch."""
        return median(self.inserts) * 1000

    @property
    def written(self) -> float:
        """How often a row was written: once by its insert, and by each merge."""
        return 1 + self.events["MergedRows"] / (self.case.rows * len(self.inserts))

    @property
    def parts(self) -> int:
        """Parts that the inserts made in `video_events`; each ledger row made one more."""
        return self.events["MergeTreeDataWriterBlocks"] - len(self.ledger)


@dataclass
class Reading:
    """How long reading takes with that many parts in each of four months, and with one, in s."""

    parts: int
    view: float
    final: float
    optimizing: float = 0.0
    view_optimized: float = 0.0
    final_optimized: float = 0.0


class Block:
    """A batch as the native format has it, whose statements get other ids each time."""

    def __init__(self, native: bytes, rows: int) -> None:
        start = re.match(rb".{2,8}?\x08event_id\x06String", native, re.DOTALL)
        assert start
        self.rows = rows
        self._head = native[: start.end()]
        self._tail = native[start.end() + rows * (_ID_LENGTH + 1) :]

    def with_ids(self, numbers: Iterator[int]) -> bytes:
        """The batch, with the ids that these numbers make."""
        ids = (b"$%08x-0000-4000-8000-%012x" % (n * 2654435761 % 2**32, n) for n in numbers)
        return b"".join((self._head, *islice(ids, self.rows), self._tail))


class Bench:
    """An engine with the tables and views in a database, and the blocks to insert."""

    def __init__(
        self, server: ClickHouseServer, settings: Settings, folder: Path, most_rows: int
    ) -> None:
        self.path = server.path
        self.folder = folder
        self.engine = server.engine
        self._numbers = count()
        self._use = f"USE {settings.clickhouse_database}"
        self.engine.query(self._use)
        self._names = _sample(server, settings, most_rows)
        self._blocks: dict[tuple[int, int], Block] = {}

    def run(self, case: Case, seconds: float) -> Found:
        """Insert for that time, then wait until merges have ended."""
        self._begin()
        found = Found(case)
        found.before = self._reads(READS)
        before = self._events()
        stop = Event()
        block = self._block(case.rows, case.months)
        started = time.monotonic()
        writers = [
            Thread(target=self._write, args=(block, number, started + seconds, found))
            for number in range(case.writers)
        ]
        others = [Thread(target=self._read, args=(stop, found))]
        others.append(Thread(target=self._watch, args=(stop, found)))
        for thread in (*writers, *others):
            thread.start()
        for thread in writers:
            thread.join()
        found.seconds = time.monotonic() - started
        found.merging = self._merged()
        stop.set()
        for thread in others:
            thread.join()
        found.events = {name: value - before[name] for name, value in self._events().items()}
        return found

    def read_parts(self, parts: int) -> Reading:
        """Read a section of READ_ROWS rows that no merge has touched, optimize, and read again."""
        self.engine.query(f"TRUNCATE TABLE {EVENTS}")
        self.engine.query(f"SYSTEM STOP MERGES {EVENTS}")
        rows = READ_ROWS // parts
        for part in range(parts):
            self._fill(part, rows)
        found = Reading(parts, *self._both())
        self.engine.query(f"SYSTEM START MERGES {EVENTS}")
        found.optimizing = self._optimize()
        found.view_optimized, found.final_optimized = self._both()
        return found

    def _both(self) -> tuple[float, float]:
        return median(self._reads(READS)), median(_timed(self.engine, FINAL) for _ in range(READS))

    def _optimize(self) -> float:
        settings = "SETTINGS optimize_skip_merged_partitions = 1"
        return _timed(self.engine, f"OPTIMIZE TABLE {EVENTS} FINAL {settings}")

    def _fill(self, part: int, rows: int) -> None:
        """Rows in sessions of ten statements, in four months."""
        made = ROWS.format(section=SECTION, part=part, rows=rows, videos=40, viewers=4000)
        self.engine.query(made)

    def _begin(self) -> None:
        for table in (EVENTS, FILES):
            self.engine.query(f"TRUNCATE TABLE {table}")
        self._fill(0, BASE_ROWS)
        self._optimize()

    def _block(self, rows: int, months: int) -> Block:
        if (rows, months) not in self._blocks:
            month = "addMonths(toDateTime64('2021-01-15 12:00:00', 3, 'UTC'), {}) + n % 999983"
            at = month.format("n % 36" if months > 1 else "26")
            replaced = (
                f"* REPLACE ({at} AS timestamp, {SECTION} + 1 + n % {SECTIONS} AS section_id,"
            )
            replaced += " toString(section_id) AS section)"
            native = self.engine.query(
                f"SELECT {', '.join(self._names)} FROM (SELECT {replaced} FROM"
                f" (SELECT *, rowNumberInAllBlocks() AS n FROM sample LIMIT {rows}))"
                f" SETTINGS max_block_size = {rows}, max_threads = 1",
                "Native",
            )
            self._blocks[rows, months] = Block(native.bytes(), rows)
        return self._blocks[rows, months]

    def _write(self, block: Block, number: int, end: float, found: Found) -> None:
        file = self.folder / f"{number}.native"
        insert = f"INSERT INTO {EVENTS} ({', '.join(self._names)}) FROM INFILE '{file}' SETTINGS"
        insert += " async_insert = 0, insert_deduplication_token = '{}' FORMAT Native"
        ledger = (
            f"INSERT INTO {FILES} (bucket, key, etag, processed_at) VALUES ('b', '{{}}', '', now())"
        )
        with self._connection() as engine:
            while time.monotonic() < end:
                file.write_bytes(block.with_ids(self._numbers))
                token = f"{number}-{len(found.inserts)}-{time.monotonic()}"
                started = time.monotonic()
                try:
                    engine.query(insert.format(token))
                except RuntimeError as error:
                    if TOO_MANY_PARTS not in str(error):
                        raise
                    found.refused += 1
                    time.sleep(1)
                    continue
                stored = time.monotonic()
                engine.query(ledger.format(token))
                found.ledger.append(time.monotonic() - stored)
                found.inserts.append(stored - started)

    def _read(self, stop: Event, found: Found) -> None:
        with self._connection() as engine:
            while not stop.wait(READ_PAUSE_SECONDS):
                found.during.append(_timed(engine, VIEW))

    def _watch(self, stop: Event, found: Found) -> None:
        question = (
            "SELECT max(parts), sum(parts) FROM (SELECT count() AS parts FROM system.parts WHERE"
            " active AND database = currentDatabase() AND table = '{}' GROUP BY partition)"
        )
        with self._connection() as engine:
            while not stop.wait(WATCH_SECONDS):
                in_month, active = _numbers(engine, question.format(EVENTS))
                found.most_in_month = max(found.most_in_month, in_month)
                found.most_active = max(found.most_active, active)

    def _merged(self) -> float:
        """Seconds until no merge has run for a second."""
        started = last = time.monotonic()
        while time.monotonic() - started < MOST_MERGING_SECONDS:
            if self._number("count() FROM system.merges"):
                last = time.monotonic()
            elif time.monotonic() - last > 1:
                break
            time.sleep(WATCH_SECONDS)
        return last - started

    def _reads(self, times: int) -> list[float]:
        return [_timed(self.engine, VIEW) for _ in range(times)]

    def _events(self) -> dict[str, int]:
        answer = self.engine.query("SELECT event, value FROM system.events", "TSV").bytes()
        found = dict(line.split("\t") for line in answer.decode().splitlines())
        return {name: int(found.get(name, 0)) for name in _EVENTS}

    def _number(self, question: str) -> int:
        return _numbers(self.engine, f"SELECT {question}")[0]

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        engine = Connection(self.path)
        engine.query(self._use)
        yield engine
        engine.close()


@contextmanager
def bench(most_rows: int) -> Iterator[Bench]:
    """A bench in a folder that is deleted afterwards."""
    with TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder, "clickhouse"), user="default", password="").start()
        try:
            settings = Settings("127.0.0.1", server.port)
            migrate(settings)
            yield Bench(server, settings, Path(folder), most_rows)
        finally:
            server.stop()


def _sample(server: ClickHouseServer, settings: Settings, rows: int) -> list[str]:
    """Load statements of the benchmarks into the table `sample`; returns the columns that the
    loader sends, the id first.
    """
    lines = list(islice(data.statements(), rows))
    columns: dict[str, Any] = to_columns(
        parse(lines, 1, Source("s3://bucket/key", "etag", "2001", 0, 0)).chunk
    )
    names = ["event_id", *(name for name in columns if name != "event_id")]
    client = ClickHouse(settings)
    server.engine.query(f"CREATE TABLE sample AS {EVENTS} ENGINE = Memory")
    client.insert("sample", columns)
    client.disconnect()
    # All ids take the same room.
    server.engine.query(
        "CREATE TABLE other ENGINE = Memory AS"
        " SELECT * REPLACE (leftPad(event_id, 36, '0') AS event_id) FROM sample"
    )
    server.engine.query("EXCHANGE TABLES sample AND other")
    return names


def _timed(engine: Connection, sql: str) -> float:
    started = time.monotonic()
    engine.query(sql)
    return time.monotonic() - started


def _numbers(engine: Connection, sql: str) -> list[int]:
    answer = engine.query(sql, "TSV").bytes().decode()
    return [int(value) for value in answer.split()]
