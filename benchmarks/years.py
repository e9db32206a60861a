"""How do questions grow with what a platform keeps?

    python -m benchmarks.years [ROWS ...]

For each number of rows (1 and 10 million, if none is given), fills a database with ten years of a
platform. Asks each question twice, in a process of its own, and prints the shorter time, and the
memory that it took beyond a server at rest. 50 million rows take about ten minutes, 4 GB of memory,
and the disk space of the rows.

Rows are sessions of ten statements, in objects of their own. Sections are of all sizes, by a power
law, each a term long, with 60 videos; section 2001 always has 300,000 rows. Every fiftieth session
came twice, and every thousandth statement is voided. Repeats stay in parts of their own until the
server merges them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from chdb.state.sqlitelike import Connection

from benchmarks.worker import memory
from local.clickhouse_server import ClickHouseServer
from xapi_etl_processor.audit.status import status
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.bulk.compare import check
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.modes.summarize import SummaryRequest, run_summarize
from xapi_etl_processor.report.figures import read_section
from xapi_etl_processor.report.write import Options, write_section
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import ledger

SECTION, SECTION_ROWS = 2001, 300_000
AT_ONCE = 1_000_000
OBJECTS = 5_000

# A session (s) of ten statements (k): plays to p, on for d seconds, seeks back and plays again.
SESSIONS = """
WITH cityHash64(s, {part}) AS h, {section} AS id, intDiv(h, 4096) % 60 AS video,
    300 + video * 20 AS length, round(intDiv(h, 160000) % 100 / 100 * length * 0.6, 1) AS p,
    intDiv(h, 16000000) % 60 AS d, '0[.]' || toString(p) AS first,
    first || '[,]' || toString(p) || '[.]' || toString(p + d) AS two,
    two || '[,]' || toString(p / 2) || '[.]' || toString(p / 2 + d) AS three,
    toDateTime64('2016-01-01', 3, 'UTC') + id % 30 * 10368000 + h % 100 * 86400
        + intDiv(h, 97) % 80000 AS began,
    'section/' || toString(id) || '/video/' || formatDateTime(began, '%Y-%m-%dT%H-%i-%S') || 'Z_'
        || toString({part}) || '-' || toString(s) || '.jsonl' AS object
"""
ROWS = """
INSERT INTO video_events (event_id, timestamp, timestamp_source, user_id, home_page, section_id,
    section, session_id, verb, video_url, video_title, video_time, video_length,
    video_played_segments, video_seek_from, video_seek_to, source_file, source_etag, source_line,
    row_version)
SETTINGS max_partitions_per_insert_block = 0
{sessions}
SELECT UUIDNumToString(toFixedString(sipHash128(s, k, {part}), 16)), began + k * 30, 'statement',
    'student' || toString(h % 4000), 'https://lms.example.edu', id, toString(id),
    toString({part}) || '-' || toString(s),
    ['initialized', 'played', 'paused', 'played', 'interacted', 'paused', 'seeked', 'played',
     'paused', 'terminated'][k + 1],
    'https://videos.example.edu/' || toString(id) || '/' || toString(video),
    'Video ' || toString(video), [0, 0, p, p, p + d / 2, p + d, p + d, p / 2, p / 2 + d,
     p / 2 + d][k + 1], length,
    ['', '', first, first, first, two, two, two, three, three][k + 1],
    if(k = 6, p + d, NULL), if(k = 6, p / 2, NULL), 's3://bundles/' || object,
    hex(h), k + 1, toUnixTimestamp(began) * 1000
FROM (SELECT intDiv(number, 10) AS s, number % 10 AS k FROM numbers({rows})) {only}
"""
FILES = """
INSERT INTO processed_files (bucket, key, etag, size, lines, video, mode, processed_at)
{sessions}
SELECT 'bundles', object, hex(h), 9000, 10, 10, 'event', began
FROM (SELECT number AS s FROM numbers(intDiv({rows}, 10)))
"""


def fill(query: Callable[[str], object], rows: int) -> None:
    """Store the rows of section 2001, and then of others, up to that number of rows in all."""
    sections = max(rows // 16_700, 1)
    mixed = f"3000 + toUInt64({sections} * pow(cityHash64(s, 'section') % 1000000 / 1000000, 3))"
    parts = [(0, SECTION_ROWS, str(SECTION))]
    parts += [(n + 1, min(AT_ONCE, rows - start), mixed) for n, start in
              enumerate(range(SECTION_ROWS, rows, AT_ONCE))]  # fmt: skip
    for part, size, section in parts:
        made = {"part": part, "rows": size, "only": ""}
        made["sessions"] = SESSIONS.format(part=part, section=section)
        query(ROWS.format(**made))
        query(FILES.format(**made))
        query(ROWS.format(**made | {"only": "WHERE s % 50 = 0"}))
    query(
        "INSERT INTO voided_statements (voided_id, voided_by)"
        " SELECT event_id, 'x' FROM video_events WHERE cityHash64(event_id) % 1000 = 0"
    )


def _view(sql: str) -> Callable[[Run, Connection], object]:
    return lambda _, engine: engine.query(sql)


def _objects(engine: Connection) -> list[S3Object]:
    answer = engine.query(
        f"SELECT key, etag FROM processed_files ORDER BY key LIMIT {OBJECTS}", "JSONCompactEachRow"
    )
    lines = map(json.loads, answer.bytes().decode().splitlines())
    return [S3Object("bundles", key, etag) for key, etag in lines]


_OF = f"WHERE section_id = {SECTION}"
QUESTIONS: dict[str, Callable[[Run, Connection], object]] = {
    "which videos are watched most": _view(f"SELECT * FROM video_engagement {_OF}"),
    "who watched less than half": _view(f"SELECT * FROM viewer_progress {_OF}"),
    "how many are still there": _view(f"SELECT * FROM video_retention {_OF}"),
    "where do they stop": _view(f"SELECT * FROM video_dropoff {_OF}"),
    "how much is watched by day": _view(f"SELECT * FROM section_daily {_OF}"),
    "`report`": lambda run, _: write_section(
        read_section(run.connections.clickhouse, str(SECTION)), Path(os.devnull), Options()
    ),
    "`summarize`, all sections": lambda run, _: run_summarize(SummaryRequest(), run),
    "`section_videos`, the first 20": _view(
        "SELECT * FROM section_videos ORDER BY minutes_watched DESC LIMIT 20"
    ),
    "`status`": lambda run, _: status(run.settings, run.connections),
    "`verify`, 5,000 objects": lambda run, engine: list(
        check(_objects(engine), run, content=False)
    ),
    "is it in the ledger? 1,000 objects": lambda run, engine: ledger.already_processed(
        run.connections.clickhouse, _objects(engine)[:1000], FOREVER
    ),
}


def ask(folder: Path, question: str) -> None:
    """Print how many seconds and megabytes the question takes, as JSON."""
    server = ClickHouseServer(folder, user="default", password="").start()
    settings = Settings("127.0.0.1", server.port)
    run = Run(settings, connections(settings), "years")
    server.engine.query(f"USE {settings.clickhouse_database}")
    run.connections.clickhouse.query("SELECT 1")
    before, took = memory()["megabytes"], []
    for _ in range(2):
        start = time.monotonic()
        QUESTIONS[question](run, server.engine)
        took.append(time.monotonic() - start)
    print(json.dumps([min(took), memory()["megabytes"] - before]), flush=True)
    os._exit(0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", type=float, default=[1e6, 1e7])
    parser.add_argument("--ask", nargs=2)
    options = parser.parse_args()
    if options.ask:
        ask(Path(options.ask[0]), options.ask[1])
    table: dict[str, list[str]] = {question: [] for question in ("rows on disk", *QUESTIONS)}
    for rows in map(int, options.rows):
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            server = ClickHouseServer(data, user="default", password="").start()
            settings = Settings("127.0.0.1", server.port)
            migrate(settings)
            server.engine.query(f"USE {settings.clickhouse_database}")
            fill(server.engine.query, rows)
            server.stop()
            size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
            table["rows on disk"].append(f"{size / 1e6:,.0f} MB")
            for question in QUESTIONS:
                command = [sys.executable, "-m", "benchmarks.years", "--ask", str(data), question]
                found = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, memory = json.loads(found.stdout.splitlines()[-1])
                table[question].append(f"{seconds:.2f} s, {memory:,.0f} MB")
                print(f"{rows:,} {question}: {table[question][-1]}", file=sys.stderr)
    print("| question |" + "".join(f" {int(rows):,} rows |" for rows in options.rows))
    print("|---|" + "---:|" * len(options.rows))
    for question, cells in table.items():
        print(f"| {question} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
