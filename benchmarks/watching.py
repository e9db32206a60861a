"""How long do the views of what was watched take for a section of a million rows?

    python -m benchmarks.watching

Fills a table with ten sections of a million statements each, in sessions of ten. Each statement
repeats all stretches of its session.
Reads each view for the first section, three times, and prints the median in seconds, the least
memory that is enough, and the granules that the plan reads.
"""

import re
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from chdb.state.sqlitelike import Connection

from local.clickhouse_server import ClickHouseServer
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

SECTION = 2001
VIEWS = {
    "video_engagement": "sum(minutes_watched)",
    "video_retention": "sum(plays)",
    "video_dropoff": "sum(viewers)",
    "video_seeks": "sum(seeks)",
    "viewer_progress": "sum(minutes_watched)",
    "section_daily": "sum(minutes_watched)",
    "stretch_disagreement": "avg(disagreement)",
}
MEMORY_MB = (128, 256, 512, 1024, 2048, 4096)

# A session (s) of ten statements (k): plays to p, on for d seconds, seeks back and plays again.
ROWS = """
INSERT INTO video_events (event_id, timestamp, timestamp_source, user_id, home_page, section_id,
    section, session_id, verb, video_url, video_title, video_time, video_length,
    video_played_segments, video_seek_from, video_seek_to)
WITH intDiv(number, 10) AS s, number % 10 AS k, cityHash64(s, {part}, {section}) AS h,
    intDiv(h, {viewers}) % {videos} AS video, 300 + video % 40 * 20 AS length,
    round(intDiv(h, 160000) % 100 / 100 * length * 0.6, 1) AS p, intDiv(h, 16000000) % 60 AS d,
    '0[.]' || toString(p) AS first,
    first || '[,]' || toString(p) || '[.]' || toString(p + d) AS two,
    two || '[,]' || toString(p / 2) || '[.]' || toString(p / 2 + d) AS three,
    ['initialized', 'played', 'paused', 'played', 'interacted', 'paused', 'seeked', 'played',
     'paused', 'terminated'] AS verbs
SELECT toString(UUIDNumToString(toFixedString(sipHash128(number, {part}, {section}), 16))),
    toDateTime64('2024-02-01', 3, 'UTC') + (h % 100) * 86400 + intDiv(h, 97) % 80000 + k * 30,
    'statement', 'student' || toString(h % {viewers}), 'https://lms.example.edu', {section},
    '{section}', toString(s) || '-' || toString({part}), verbs[k + 1],
    'https://videos.example.edu/{section}/' || toString(video), 'Video ' || toString(video),
    [0, 0, p, p, p + d / 2, p + d, p + d, p / 2, p / 2 + d, p / 2 + d][k + 1], length,
    ['', '', first, first, first, two, two, two, three, three][k + 1],
    if(k = 6, p + d, NULL), if(k = 6, p / 2, NULL)
FROM numbers({rows})
"""


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        server = ClickHouseServer(Path(folder), user="default", password="").start()
        settings = Settings("127.0.0.1", server.port)
        migrate(settings)
        query = server.engine.query
        query("USE xapi_analytics")
        for part in range(4):
            _fill(server.engine, SECTION, part, 250_000)
        for section in range(3000, 3009):
            _fill(server.engine, section, 0, 1_000_000)
        print(f"{'view':<32}{'seconds':>8}{'MB':>7}  granules read")
        for view, value in VIEWS.items():
            sql = f"SELECT count(), {value} FROM {view} WHERE section_id = {SECTION}"
            seconds = median(_seconds(server.engine, sql) for _ in range(3))
            # A pretty plan spells out what each column is made of.
            plan = str(query(f"EXPLAIN indexes = 1, pretty = 0 {sql}", "TSVRaw"))
            granules = re.findall(r"Granules: (\d+/\d+)", plan)[-1]
            print(f"{view:<32}{seconds:>8.2f}{_enough(server.engine, sql):>7}  {granules}")
        server.stop()


def _fill(engine: Connection, section: int, part: int, rows: int) -> None:
    """Rows of a section with 40 videos and 4,000 viewers."""
    engine.query(ROWS.format(section=section, part=part, rows=rows, videos=40, viewers=4000))


def _seconds(engine: Connection, sql: str) -> float:
    start = time.monotonic()
    engine.query(sql)
    return time.monotonic() - start


def _enough(engine: Connection, sql: str) -> int:
    """The smallest of MEMORY_MB with which the query ends."""
    for size in MEMORY_MB:
        try:
            engine.query(f"{sql} SETTINGS max_memory_usage = {size * 1_000_000}")
        except Exception as error:
            if "MEMORY_LIMIT_EXCEEDED" not in str(error):
                raise
        else:
            return size
    raise SystemExit(f"more than {MEMORY_MB[-1]} MB: {sql}")


if __name__ == "__main__":
    main()
