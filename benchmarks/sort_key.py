"""Which sorting key of video_events is best for "one section", "one video" and "one week"?

    python -m benchmarks.sort_key

Fills a copy of the table for each key with the same rows (a year; 200 sections, each a term long,
every fifth with a text for a number; 2,000 videos, each in 4 sections). Each month has three
parts that are never merged: its first weeks, its last weeks, and a replay of every 50th statement.
Runs the same queries with FINAL on each copy, for five sections from large to small. Prints
thousands of rows read (mean) and milliseconds (median).
"""

import re
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from chdb.state.sqlitelike import Connection

SCHEMA = (
    Path(__file__).parents[1]
    / "xapi_etl_processor/migrations/schema/0002_versions_sections_voiding.sql"
)
BLOOM = ", INDEX by_video video_url TYPE bloom_filter(0.01) GRANULARITY 1"
BOTH = BLOOM + ", INDEX by_section section TYPE bloom_filter(0.01) GRANULARITY 1"

FOUR = "section_id, section, video_url, timestamp"

# ORDER BY without event_id, its last part; PRIMARY KEY, "" for all of ORDER BY; skip index.
KEYS = (
    ("section_id, video_url, timestamp", "", BLOOM),
    ("section_id, video_url, timestamp", "", BOTH),
    ("section, video_url, timestamp", "", BLOOM),
    (FOUR, "", ""),
    (FOUR, "", BLOOM),
    (FOUR, FOUR, BLOOM),
    (FOUR, FOUR, BOTH),
    ("section_id, section, timestamp", "section_id, section, timestamp", BOTH),
    ("section_id, section, toDate(timestamp), video_url", "", BOTH),
    ("video_url, section_id, section, timestamp", "", ""),
)
IN_WEEK = "timestamp >= '{week}' AND timestamp < toDate('{week}') + 7"
QUESTIONS = {
    "section": "section_id = {section}",
    "its number as text": "section = '{section}'",
    "section of text": "section = '{text}'",
    "video": "video_url = '{video}'",
    "video of section": "section_id = {section} AND video_url = '{video}'",
    "week": IN_WEEK,
    "week of section": "section_id = {section} AND " + IN_WEEK,
}
# Sessions (s) of 8 statements (k). The students of a course (c) watch its 40 videos around their
# due dates in the term. Columns that are not listed are absent, as in most statements.
ROWS = """
WITH x -> UUIDNumToString(sipHash128(x)) AS uuid, intDiv(number, 8) AS s, number % 8 AS k,
  toUInt64(200 * pow(cityHash64(s, 'section') % 100000 / 100000, 1.5)) AS i, i % 50 AS c,
  i * 1000 + cityHash64(s, 'viewer') % 150 AS viewer, cityHash64(s, 'video') % 40 AS v,
  c * 40 + v AS video, 100 + video % 800 AS long, k IN (0, 2, 3, 5) AS starts,
  toUInt64(i % 3 * 121 + v * 2.5 + cityHash64(s, 'late') % 21) AS day,
  toDateTime64('2024-01-01 08:00:00', 3, 'UTC') + toIntervalMillisecond(day * 86400000
    + cityHash64(s, 'clock') % 50000000 + k * 41000 + cityHash64(number) % 9000) AS at,
  toStartOfTenMinutes(at) AS sent,
  ['played', 'paused', 'seeked', 'played', 'paused', 'played', 'paused', 'completed'] AS verbs
SELECT uuid((number, 1)) AS event_id, at AS timestamp, 300000 + viewer AS user_id,
  'https://proton.oli.cmu.edu' AS home_page, if(i % 5 = 4, 0, 2000 + i) AS section_id,
  if(section_id = 0, 'BIO' || toString(i), toString(section_id)) AS section, 1000 + c AS project_id,
  3000 + c AS publication_id, 70000 + video AS page_id, uuid((viewer, video)) AS attempt_guid,
  1 AS attempt_number, cityHash64(video) % 10000000000 AS content_element_id,
  uuid((viewer, 2)) AS registration, uuid((s, 3)) AS session_id, verbs[k + 1] AS verb,
  'https://w3id.org/xapi/video/verbs/' || verb AS verb_id,
  'https://www.youtube.com/watch?v=' || left(uuid(video), 11) AS video_url,
  'Lesson ' || toString(v) || ': ' || uuid(video) AS video_title,
  round(k * long / 8, 3) AS video_time, if(k = 2, NULL, long) AS video_length,
  if(starts, NULL, k / 8) AS video_progress, if(starts, '', arrayStringConcat(arrayMap(
    n -> toString(round(n * long / 8 + (s + n) % 997 / 1000, 3)) || '[.]'
      || toString(round((n + 1) * long / 8, 3)), range(k)), '[,]')) AS video_played_segments,
  's3://xapi/section/' || section || '/video/' || toString(sent) || '_'
    || uuid((i, sent)) || '.jsonl' AS source_file, hex(sipHash128(i, sent)) AS source_etag,
  cityHash64(s) % 900 + k AS source_line, toUnixTimestamp(sent) * 1000 AS row_version,
  at + 60 AS inserted_at
FROM numbers(5200000)"""
SIZES = """SELECT round(sum(bytes_on_disk) / 1e6), round(sum(primary_key_size) / 1e3)
FROM system.parts WHERE table = 'candidate' AND active"""
# Each INSERT creates one part.
INSERTS = [
    f"INSERT INTO candidate SELECT {columns} FROM source WHERE toYYYYMM(timestamp) = {month}"
    f" AND {part} SETTINGS min_insert_block_size_rows = 10000000, min_insert_block_size_bytes = 0"
    for month in range(202401, 202413)
    for columns, part in (
        ("*", "toDayOfMonth(timestamp) <= 18"),
        ("*", "toDayOfMonth(timestamp) > 18"),
        ("* REPLACE (row_version + 86400000 AS row_version)", "cityHash64(event_id) % 50 = 0"),
    )
]


def rows(engine: Connection, sql: str) -> list[list[str]]:
    """The rows of the answer, as text."""
    answer = engine.query(sql, "TSV").bytes().decode()
    return [line.split("\t") for line in answer.splitlines()]


def create(engine: Connection, table: str, kind: str, keys: str, index: str = "") -> None:
    """Create a table with the columns and partitions of video_events."""
    table_text = SCHEMA.read_text().partition("video_events_old\n")[2].partition("ENGINE")[0]
    columns = re.findall(r"^ +(`.*')", table_text, re.MULTILINE)
    partition = "PARTITION BY toYYYYMM(timestamp)"
    engine.query(f"CREATE TABLE {table} ({', '.join(columns)}{index}) {kind} {partition} {keys}")
    engine.query(f"SYSTEM STOP MERGES {table}")


def ask(engine: Connection, where: str, subjects: list[list[str]]) -> tuple[str, bytes]:
    """Rows read and milliseconds for one kind of query, and its answers."""
    template = f"SELECT section_id, verb, count() FROM candidate FINAL WHERE {where} GROUP BY ALL"
    sql = [
        template.format(section=section, text=text, video=video, week=week) + " ORDER BY ALL"
        for section, text, video, week in subjects
    ]
    engine.query(sql[0])  # warm-up
    answers = [engine.query(query) for query in sql]
    read = mean(answer.storage_rows_read() for answer in answers) / 1000
    took = median(answer.elapsed() for answer in answers) * 1000
    return f"{read:>11,.0f}{took:>6,.0f}", b"".join(answer.bytes() for answer in answers)


def main() -> None:
    """Print one line per key."""
    with TemporaryDirectory() as folder:
        engine = Connection(folder)
        create(engine, "source", "ENGINE = MergeTree", "ORDER BY tuple()")
        names = ", ".join(name for name, *_ in rows(engine, f"DESCRIBE ({ROWS})"))
        engine.query(f"INSERT INTO source ({names}) {ROWS}")
        text = "'BIO' || toString(intDiv(section_id, 5) * 5 - 1996)"
        about = f"section_id, {text}, topK(1)(video_url)[1], toDate(quantile(0.5)(timestamp))"
        some = "section_id IN (2003, 2038, 2077, 2112, 2151) GROUP BY 1 ORDER BY 1"
        subjects = rows(engine, f"SELECT {about} FROM source WHERE {some}")
        title = f"{'ORDER BY without event_id | PRIMARY KEY if shorter':<77}   MB key kB"
        print(title, *(f"{question:>17}" for question in QUESTIONS), sep="")
        expected: list[bytes] = []
        for order, primary, index in KEYS:
            keys = f"ORDER BY ({order}, event_id)" + (primary and f" PRIMARY KEY ({primary})")
            create(engine, "candidate", "ENGINE = ReplacingMergeTree(row_version)", keys, index)
            for sql in INSERTS:
                engine.query(sql)
            asked = [ask(engine, where, subjects) for where in QUESTIONS.values()]
            expected = expected or [answers for _, answers in asked]
            assert expected == [answers for _, answers in asked], f"{keys} changed the answers"
            label = (
                order
                + (primary and f" | {primary}")
                + (index and f" + {index.count('bloom')} bloom")
            )
            [[disk, key_size]] = rows(engine, SIZES)
            costs = "".join(cost for cost, _ in asked)
            print(f"{label:<77}{disk:>5}{key_size:>7}{costs}", flush=True)
            engine.query("DROP TABLE candidate SYNC")
        engine.close()


if __name__ == "__main__":
    main()
