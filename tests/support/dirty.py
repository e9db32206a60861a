"""Tables as they are after a year: repeats that no merge has joined yet, versions of an object, and
whatever else a query that forgets something counts wrongly. The tests of all readers share them.

Merges are stopped. Section 2001 has two videos, of 100 and of 60 seconds:

| viewer | video | watched | played | sessions | besides |
|---|---|---|---|---|---|
| viewer-0 to viewer-3 | first | 40, 30, 45, 25 s | 50, 40, 45, 25 s | 1 March | the examples of docs/watching.md; viewer-3 jumps from 10 to 70 |
| viewer-3 of another home page | first | 10 s | 10 s | 1 March | jumps from 10 to 70 too |
| gus | first | 60 s | 60 s | 1 March, to the 2nd | 50 s in an object's first version, 10 s in its second |
| fay | first | | | | voided |
| eve | second | 60 s | 60 s | 2 March | completed; the statement came in three objects |
| nobody knows who | second | 30 s | 30 s | 1 March | under another title of the video |

So 24 statements count: 18 of the examples, 2, 2, 1 and 1. One more is in section 1, with the time of
its object's key, and one in a section with a hostile name, without any time.

| object | lines | rows | loaded |
|---|---|---|---|
| ALL | 20 videos, the voiding, another, a blank and a rejected line, which names viewer-0 | 40 | twice, by uploads |
| HOMES | 3 videos | 3 | |
| VERSIONS | a video and a rejected line; then another video, a blank and a rejected line | 2 | each version |
| AGAIN | eve's statement | 1 | by bulk |
| LATE | eve's statement, with an older title | 1 | last, though it was modified first |
| OLD | a video, in section 1 | 1 | a hundred days ago; a merge since has left an inactive part |
| HOSTILE_KEY | a video | 2 | twice |
| NO_BUNDLE | 2 rejected lines | | fails, twice |

50 rows are 27 statements, of which the ledger counts 29: eve's came twice more. The ledger and the
rejected lines have a row of each object from an earlier release besides, which counted and said
other things.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.s3.models import s3_backends

from local.clickhouse_server import ClickHouseServer
from tests.support.reader import answers
from tests.support.samples import BAD_LINE, VIDEO, content, event_id, other, video
from tests.support.watched import EXAMPLES, statements_of
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import process
from xapi_etl_processor.outcome import Status
from xapi_etl_processor.run import Connections, Run, Wanted
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object

HOME_PAGE, OTHER_PAGE = "https://lms.example.edu", "https://other.example.edu"
URL, SECOND_URL = "https://example.org/video/1", "https://example.org/video/2?t='\\'"
HOSTILE = "it's \\' OR 1 = 1 -- "
TITLE = "What's \\'new"

OLD = "section/1/video/2019-05-06T07-08-09Z_old.jsonl"
HOSTILE_KEY = "section/1/video/hostile.jsonl"
ALL = "section/2001/video/2024-03-02T10-00-00Z_all.jsonl"
HOMES = "section/2001/video/2024-03-03T10-00-00Z_homes.jsonl"
VERSIONS = "section/2001/video/2024-03-02T11-00-00Z_versions.jsonl"
LATE = "section/2001/video/2024-03-01T10-00-00Z_late.jsonl"
AGAIN = "section/2001/video/again.jsonl"
NO_BUNDLE = "section/2001/video/none.jsonl"

TABLES = ("video_events", "processed_files", "rejected_statements", "voided_statements")


@dataclass
class Dirty:
    """The database, the bucket, and the variables with which commands find both."""

    server: ClickHouseServer
    database: str
    bucket: str
    environment: dict[str, str]
    objects: dict[str, tuple[bytes, datetime | None]] = field(default_factory=dict)

    def put(self, s3: Any, key: str, body: bytes, modified: datetime | None) -> None:
        """Upload an object, and remember it."""
        self.objects[key] = body, modified
        s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        if modified:
            stored = s3_backends["123456789012"]["aws"].buckets[self.bucket].keys[key]
            stored.last_modified = modified

    def restore(self, s3: Any) -> None:
        """Upload all objects again if another test has begun with an empty account."""
        if self.bucket not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
            s3.create_bucket(Bucket=self.bucket)
            for key, (body, modified) in list(self.objects.items()):
                self.put(s3, key, body, modified)

    @property
    def settings(self) -> Settings:
        """The settings by these variables."""
        return Settings.from_env(self.environment)

    def ask(self, sql: str) -> list[list[Any]]:
        """The rows of a query, from the engine itself."""
        return answers(self.server, self.database, sql)

    def uri(self, key: str) -> str:
        """The object's URI, as in the column source_file."""
        return f"s3://{self.bucket}/{key}"


def by(number: int, name: str, page: str = HOME_PAGE, **more: Any) -> dict[str, Any]:
    return video(number, actor={"account": {"name": name, "homePage": page}}, **more)


def played(stretches: str, **more: Any) -> dict[str, Any]:
    """The result of a statement."""
    return {"extensions": {VIDEO + "played-segments": stretches, **more}}


def verb(name: str) -> dict[str, str]:
    return {"id": f"https://w3id.org/xapi/video/verbs/{name}"}


def eve(title: str) -> dict[str, Any]:
    return by(
        900,
        "eve",
        verb=verb("completed"),
        object={"id": SECOND_URL, "definition": {"name": {"en": title}}},
        result=played("0[.]60", **{VIDEO + "length": 60}),
        timestamp="2024-03-02T09:00:00Z",
    )


def examples() -> Iterator[dict[str, Any]]:
    """The four examples of docs/watching.md, each with its own viewer."""
    for example, title in enumerate(EXAMPLES):
        for number, statement in enumerate(statements_of(title)):
            actor = {"account": {"name": f"viewer-{example}", "homePage": HOME_PAGE}}
            yield {**statement, "id": event_id(100 * example + number), "actor": actor}


VOIDING = {
    "actor": {"mbox": "mailto:admin@example.org"},
    "verb": {"id": "http://adlnet.gov/expapi/verbs/voided"},
    "object": {"objectType": "StatementRef", "id": event_id(901)},
    "timestamp": "2024-03-02T09:30:00.250Z",
}
FAY = by(901, "fay", result=played("0[.]90"))
SEEK = {VIDEO + "time-from": 10, VIDEO + "time-to": 70}
TWO_HOMES = (
    by(910, "viewer-3", OTHER_PAGE, result={"extensions": {VIDEO + "time": 0}},
       timestamp="2024-03-01T12:30:00Z"),
    by(911, "viewer-3", OTHER_PAGE, verb=verb("seeked"), result={"extensions": SEEK},
       timestamp="2024-03-01T12:30:10Z"),
    video(912, actor={"name": "somebody"}, verb=verb("paused"),
          object={"id": SECOND_URL, "definition": {"name": {"en": "Before"}}},
          result=played("0[.]30", **{VIDEO + "length": 60}), timestamp="2024-03-01T10:00:00Z"),
)  # fmt: skip
GUS = (
    by(920, "gus", verb=verb("paused"), result=played("0[.]50"), timestamp="2024-03-01T08:00:00Z"),
    by(921, "gus", verb=verb("paused"), result=played("60[.]70"), timestamp="2024-03-02T08:00:00Z"),
)
NAMING = b'{"actor": {"account": {"name": "viewer-0"}}, "verb": "\xff'
UNTIMED = {k: v for k, v in video(902).items() if k != "timestamp"} | {
    "context": {"extensions": {"http://oli.cmu.edu/extensions/section_id": HOSTILE}}
}
BY_KEY = {k: v for k, v in by(940, "ida").items() if k != "timestamp"}


def fill(dirty: Dirty, s3: Any) -> None:
    """Load all that the module's text says."""
    connections = Connections(Stores(), ClickHouse(dirty.settings))

    def put(key: str, *lines: Any, modified: datetime | None = None) -> None:
        dirty.put(s3, key, content(*lines), modified)

    def load(key: str, *lines: Any, mode: str = "event", force: bool = False) -> None:
        if lines:
            put(key, *lines)
        run = Run(dirty.settings, connections, mode, Wanted(force=force))
        (outcome,) = process([S3Object(dirty.bucket, key)], run)
        expected = Status.FAILED if key == NO_BUNDLE else Status.PROCESSED
        assert outcome.status is expected, outcome.error

    load(OLD, BY_KEY)
    dirty.ask("OPTIMIZE TABLE video_events FINAL")
    dirty.ask(
        "INSERT INTO processed_files SELECT * REPLACE (processed_at - toIntervalDay(100) AS"
        " processed_at) FROM processed_files"
    )
    dirty.ask(
        "ALTER TABLE processed_files DELETE WHERE processed_at > now() - toIntervalDay(1)"
        " SETTINGS mutations_sync = 2"
    )
    for table in TABLES:
        dirty.ask(f"SYSTEM STOP MERGES {dirty.database}.{table}")
    load(HOSTILE_KEY, UNTIMED)
    load(HOSTILE_KEY, force=True)
    load(ALL, *examples(), eve(TITLE), FAY, VOIDING, other(1), b"", NAMING)
    load(ALL, force=True)
    load(HOMES, *TWO_HOMES)
    load(VERSIONS, GUS[0], BAD_LINE)
    load(VERSIONS, GUS[1], b"", BAD_LINE)
    put(AGAIN, eve(TITLE), modified=datetime(2024, 3, 2, 10, tzinfo=UTC))
    load(AGAIN, mode="bulk")
    load(NO_BUNDLE, BAD_LINE, BAD_LINE)
    load(NO_BUNDLE, force=True)
    put(LATE, eve("An older title"), modified=datetime(2024, 3, 1, 10, tzinfo=UTC))
    load(LATE)
    connections.clickhouse.disconnect()
    dirty.ask(
        "INSERT INTO processed_files SELECT * REPLACE ("
        "video + 5 AS video, other + 1 AS other, rejected + 9 AS rejected,"
        " processed_at - toIntervalHour(30) AS processed_at) FROM processed_files FINAL"
    )
    dirty.ask(
        "INSERT INTO rejected_statements SELECT * REPLACE ('in older words' AS reason,"
        " rejected_at - toIntervalHour(30) AS rejected_at) FROM rejected_statements FINAL"
    )
