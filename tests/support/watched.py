"""Rows of viewers, put into a database with the views of what was watched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from local.clickhouse_server import ClickHouseServer
from tests.support.reader import answers
from tests.support.samples import VIDEO, video
from xapi_etl_processor.report.figures import Video

MIDNIGHT = 1_709_251_200  # 2024-03-01T00:00:00Z
LENGTH = 60
URL = "https://videos.example.edu/1"

FIGURES = Video(URL, "The lesson", 100.0, 24, 30, 16, 28.0, 29.0, 0.7, opened=26)
"""A video of a report, without its places, stops, seeks and periods."""

Row = dict[str, Any]

PAGE = (Path(__file__).parents[2] / "docs/watching.md").read_text()
EXAMPLES = (
    "A player that repeats all its stretches",
    "A player that sends only its last stretch",
    "A player that sends none, and a tab that is closed",
    "A seek while playing",
)
"""The examples of that page."""

EXAMPLES_OF_RULES = (
    "Statements of one second, from two objects",
    "A jump that is not reported",
    "An open last stretch",
)
"""Those that follow, of players that do not send all."""


def statements_of(example: str) -> Iterator[dict[str, Any]]:
    """The statements in the example of that title in docs/watching.md."""
    lines = PAGE.split(f"### {example}\n")[1].split("```\n")[1].splitlines()
    for number, line in enumerate(lines):
        at, verb, *words = line.split()
        result: dict[str, Any] = {VIDEO + "length": 100}
        if verb == "seeked":
            result |= {VIDEO + "time-from": int(words[0]), VIDEO + "time-to": int(words[2])}
        else:
            result[VIDEO + "time"] = int(words[0])
            if len(words) > 1:
                result[VIDEO + "played-segments"] = words[1]
        yield video(
            number,
            actor={"account": {"name": "ada", "homePage": "https://lms.example.edu"}},
            verb={"id": f"https://w3id.org/xapi/video/verbs/{verb}"},
            result={"extensions": result},
            timestamp=f"2024-03-01T12:{int(at) // 60:02}:{int(at) % 60:02}Z",
        )


_numbers = count()
_sections = count(1)


def row(at: int, verb: str, **more: Any) -> Row:
    """A row of video_events, `at` seconds after midnight."""
    number = next(_numbers)
    return {
        "event_id": f"00000000-0000-4000-8000-{number:012}",
        "timestamp": MIDNIGHT + at,
        "timestamp_source": "statement",
        "user_id": "ada",
        "home_page": "https://lms.example.edu",
        "session_id": "s",
        "verb": verb,
        "video_url": URL,
        "video_length": LENGTH,
        **more,
    }


def rows_of(example: str) -> tuple[list[Row], float]:
    """The rows in the example of that title in docs/watching.md, each from an object of its own,
    and the seconds that it says were watched.
    """
    rows = []
    for number, statement in enumerate(statements_of(example)):
        sent = {key.removeprefix(VIDEO): value for key, value in
                statement["result"]["extensions"].items()}  # fmt: skip
        clock = statement["timestamp"][14:19]
        rows.append(row(
            int(clock[:2]) * 60 + int(clock[3:]),
            statement["verb"]["id"].rpartition("/")[2],
            video_length=sent["length"],
            video_time=sent.get("time"),
            video_seek_from=sent.get("time-from"),
            video_seek_to=sent.get("time-to"),
            video_played_segments=sent.get("played-segments", ""),
            source_file=f"s3://bundles/{number}",
        ))  # fmt: skip
    said = PAGE.split(f"### {example}\n")[1].split("Watched: ")[1].split(" ")[0]
    return rows, float(said)


@dataclass
class Watched:
    """A section of its own in a database that tests share, and the views of it."""

    server: ClickHouseServer
    database: str
    section: int = field(default_factory=lambda: next(_sections))

    def insert(self, *rows: Row) -> None:
        """Insert rows in one insert."""
        here = {"section_id": self.section, "section": str(self.section)}
        lines = "\n".join(json.dumps({**here, **row}) for row in rows)
        self.server.engine.query(
            f"INSERT INTO {self.database}.video_events FORMAT JSONEachRow {lines}"
        )

    def void(self, *event_ids: str) -> None:
        """Void these statements."""
        for event_id in event_ids:
            self.server.engine.query(
                f"INSERT INTO {self.database}.voided_statements (voided_id, voided_by)"
                f" VALUES ('{event_id}', 'another')"
            )

    def view(self, name: str, columns: str) -> list[list[Any]]:
        """The section's rows in a view, sorted."""
        return self.of_sections([self.section], name, columns)

    def of_sections(self, sections: Iterable[int], name: str, columns: str) -> list[list[Any]]:
        """Rows of several sections in a view, sorted."""
        among = ", ".join(map(str, sections))
        sql = f"SELECT {columns} FROM {name} WHERE section_id IN ({among}) ORDER BY ALL"
        return answers(self.server, self.database, sql)
