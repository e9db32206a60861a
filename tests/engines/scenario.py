"""Everything that touches ClickHouse, done once on an engine; prints what was found as JSON.

    python -m tests.engines.scenario     with the settings of a loader in the environment

What depends on the moment or on the version itself is left out, so that two engines must print the
same.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from clickhouse_driver import Client

from local.bundles import Bundle, generate
from tests.engines.versions import ROOT
from tests.report.test_dashboards import queries
from tests.support import former_schema, grafana
from tests.support.samples import context
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main as command_line
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.modes import health
from xapi_etl_processor.storage.tables import TYPES

SECTION = 2001
JANUARY = grafana.Range(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC))
MOMENTS = {
    *("inserted_at", "row_version", "processed_at", "run_id", "rejected_at", "forgotten_at"),
    *("duration_ms", "latency_ms", "version", "modified", "noted_at", "created_at"),
    *("freshness", "applied", "bytes", "example", "summarized_at", "as_of"),
    "As of",
}
"""Columns and keys that no two runs have alike."""

Found = dict[str, Any]


def bundles() -> list[Bundle]:
    """What is uploaded: three sections and four days."""
    return list(generate(days=3, bundles_per_day=2))


def documented() -> Iterator[tuple[str, str]]:
    """The queries of the pages for analysts, each with its place."""
    for page in ("tables", "watching"):
        text = (ROOT / f"docs/{page}.md").read_text()
        for number, block in enumerate(re.findall(r"```sql\n(.*?)```", text, re.DOTALL)):
            if not re.search(r"\bCREATE\b|video_events_old|watched_seconds|ALTER", block):
                for sql in filter(str.strip, block.split(";")):
                    yield f"docs/{page}.md, {number}", sql


def rounded(text: str) -> str:
    """The text with numbers of many digits rounded: the last ones depend on the order in which
    threads add up.
    """
    return re.sub(r"\d+\.\d{10,}(?:e-?\d+)?", lambda found: f"{float(found[0]):.10g}", text)


def without_moments(value: Any) -> Any:
    """An answer without what no two runs have alike."""
    if isinstance(value, dict):
        return {k: without_moments(v) for k, v in value.items() if k not in MOMENTS}
    return [without_moments(item) for item in value] if isinstance(value, list) else value


class Scenario:
    """A loader, a bucket and a database."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.s3 = boto3.client("s3")
        self.client = Client(
            settings.clickhouse_host,
            settings.clickhouse_port,
            database=settings.clickhouse_database,
            compression="lz4",
        )

    def ask(self, sql: str) -> list[Any]:
        """The rows of a query, as text and in a fixed order."""
        sql = sql.replace("xapi_analytics", self.settings.clickhouse_database)
        # Of rows that tie, any may be the last.
        sql = re.sub(r"\bLIMIT \d+( BY \w+)?\s*$", "", sql)
        rows, columns = self.client.execute(sql.rstrip().rstrip(";"), with_column_types=True)
        kept = [place for place, (name, _) in enumerate(columns) if name not in MOMENTS]
        return sorted(repr([row[place] for place in kept]) for row in rows)

    def invoke(self, payload: dict[str, Any]) -> Any:
        """The body of the handler's answer."""
        return without_moments(json.loads(handler(payload, context(600))["body"]))

    def run(self, *arguments: str) -> Any:
        """The exit code of a command, and the JSON that it prints."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = command_line([*arguments])
        text = said.getvalue()
        return [code, without_moments(json.loads(text)) if text[:1] in "{[" else text]

    def upload(self) -> None:
        """Upload all bundles."""
        for bundle in bundles():
            self.s3.put_object(Bucket=self.settings.bucket, Key=bundle.key, Body=bundle.body)

    def steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """What is done, in order, each with its name."""
        yield "migrate", lambda: migrate(self.settings)
        self._keep_empty_parts(self.settings.clickhouse_database)
        yield "migrate again", lambda: migrate(self.settings)
        yield "health of empty tables", lambda: self.invoke({"health_check": True})["clickhouse"]
        self.upload()
        yield "load", lambda: self.invoke({"mode": "bulk"})
        yield "load again", lambda: self.invoke({"mode": "bulk"})
        yield "load by force", lambda: self.invoke({"mode": "bulk", "force_reprocess": True})
        yield "replace", self._replace
        yield "verify content", lambda: self.run("verify", "--content", "--json")
        somebody = "SELECT max(user_id) FROM video_events WHERE section_id = 2001"
        user = str(self.client.execute(somebody)[0][0])
        yield "access", lambda: self.run("access", "--user", user)
        yield "summarize", lambda: self.run("summarize")
        yield "forget", lambda: self.run("forget", "--yes", "--user", user)
        yield "sweep", lambda: self.run("forget", "--sweep")
        yield "access to nothing", lambda: self.run("access", "--user", user)
        yield "status", lambda: self.run("status", "--json")
        yield "rejects", lambda: self.run("rejects", "--json")
        yield "verify", lambda: self.run("verify", "--json")
        yield "forgotten in summaries", lambda: self.ask("SELECT section FROM section_videos")
        yield "summarize again", lambda: self.run("summarize")
        yield "drop-months", lambda: self.run("drop-months", "--before", "2024-02", "--dry-run")
        yield "report", self._report
        yield from self._readers()
        yield "health", lambda: self.invoke({"health_check": True})["clickhouse"]
        yield "rows of 0.1", self._version_0_1

    def _replace(self) -> Any:
        """A bundle without its last lines takes the place of the whole one."""
        whole = max(bundles(), key=lambda bundle: bundle.video)
        lines = b"\n".join(whole.lines[:-8]) + b"\n"
        self.s3.put_object(Bucket=self.settings.bucket, Key=whole.key, Body=lines)
        asked = {"bucket": self.settings.bucket, "key": whole.key, "replace": True}
        return self.invoke(asked)

    def _keep_empty_parts(self, database: str) -> None:
        """Have parts stay whose rows were all removed.

        Before version 26.3, a server that is started twice may show what they cover for a moment
        (ClickHouse's pull request 98698), and old engines are started for each query.
        """
        tables = "SELECT name FROM system.tables WHERE engine LIKE '%MergeTree' AND database ="
        for (table,) in self.client.execute(f"{tables} '{database}'"):
            self.client.execute(
                f"ALTER TABLE {database}.{table} MODIFY SETTING remove_empty_parts = 0"
            )

    def _report(self) -> Any:
        with TemporaryDirectory() as folder:
            made = self.run("report", "--all", "-o", folder)
            pages = {path.name: path.read_text() for path in Path(folder).iterdir()}
            drawn = re.compile(r'id="data">(.*?)</script>', re.DOTALL)
            return [made[0], {name: drawn.findall(page) for name, page in sorted(pages.items())}]

    def _readers(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Tables, views, and the queries of the dashboards and the pages."""
        for table in TYPES:
            if table != "forgotten_learners":
                yield f"{table}", partial(self.ask, f"SELECT * FROM {table} FINAL")
        for view in re.findall(
            r"^CREATE OR REPLACE VIEW (\w+)",
            (ROOT / "xapi_etl_processor/migrations/views.sql").read_text(),
            re.MULTILINE,
        ):
            # A statement's place includes when its object was uploaded, which is now.
            columns = "* EXCEPT in_order" if view == "video_visits" else "*"
            yield f"{view}", partial(self.ask, f"SELECT {columns} FROM {view}")
        named = {"section": str(SECTION), "video": self._video()}
        for name in grafana.DASHBOARDS:
            for title, sql in queries(name).items():
                if title == "Migrations":
                    continue  # It shows when they were applied.
                sent = grafana.sent(sql, named, JANUARY)
                yield f"{name}: {title}", partial(self.ask, sent)
        for name, sql in documented():
            yield f"{name}", partial(self.ask, sql)

    def _video(self) -> str:
        found = self.client.execute("SELECT max(video_url) FROM video_events")
        return str(found[0][0])

    def _version_0_1(self) -> Any:
        """A database of before this version, with rows, is brought forward."""
        old = replace(self.settings, clickhouse_database="version_0_1")
        former_schema.create(old, upto=1)
        self._keep_empty_parts(old.clickhouse_database)
        rows = [
            (
                f"{{00000000-0000-4000-8000-00000000000{n}}}".upper(),
                0,
                "1.5x",
                f"s3://b/section/{s}/x",
            )
            for n, s in enumerate(("7", "BIO101", "18446744073709551616"))
        ]
        into = (
            "INSERT INTO version_0_1.video_events (event_id, section_id, speed, source_file) VALUES"
        )
        self.client.execute(into, rows)
        applied = migrate(old)
        kept = "SELECT event_id, section_id, section, speed FROM version_0_1.video_statements"
        return [applied, migrate(old), sorted(map(repr, self.client.execute(kept)))]


def main() -> int:
    """Do everything; each step prints a line of JSON with what it found, or its error."""
    # An engine that is started for each query needs longer than a server may take.
    health.SERVICE_SECONDS = 60
    settings = Settings.from_env(os.environ)
    scenario = Scenario(settings)
    with contextlib.suppress(scenario.s3.exceptions.BucketAlreadyOwnedByYou):
        scenario.s3.create_bucket(Bucket=settings.bucket)
    for name, step in scenario.steps():
        try:
            found = step()
        except Exception as error:  # noqa: BLE001  # what differs between engines is what we look for
            found = f"{type(error).__name__}: {str(error)[:400]}"
        print(rounded(json.dumps([name, found], default=repr)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
