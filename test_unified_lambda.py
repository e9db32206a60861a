#!/usr/bin/env python3
"""A demo of the whole job on this machine: the real handler, no account, no server.

    python3 test_unified_lambda.py

Starts S3 (moto) and the current ClickHouse engine (chDB) on loopback, uploads generated bundles,
sends the handler the payloads that AWS would send, in every mode, and checks the answers and the
tables against what was generated. Then it writes a report of what was watched. The tables stay in
.local/demo, and the report in .local/demo-report, until the next run, which makes them again. Exit
code 0: everything matched.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections import Counter
from typing import Any
from urllib.parse import quote_plus

try:
    import boto3
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from local import DEMO, DEMO_REPORT, aws
    from local.bundles import Bundle, generate
    from local.clickhouse_server import ClickHouseServer, FolderUnusable
    from xapi_etl_processor.clickhouse_client import ClickHouse
except ImportError as error:
    sys.exit(f"{error}. Install the dependencies first: pip install -r requirements.txt")

BUCKET = "xapi-bundles"

_LANDED = """
SELECT section, statements, opened, videos, completed, rejected
FROM
(
    -- The name of an account is unique within its home page.
    SELECT section, count() AS statements, uniqExact(home_page, user_id) AS opened,
        uniqExact(video_url) AS videos,
        uniqExactIf((home_page, user_id, video_url), verb = 'completed') AS completed
    FROM xapi_analytics.video_statements
    GROUP BY section
) AS watched
LEFT JOIN
(
    SELECT extract(source_file, '/section/([^/]+)/') AS section, count() AS rejected
    FROM xapi_analytics.rejected_statements FINAL
    GROUP BY section
) AS not_statements USING section
ORDER BY section
"""


class Demo:
    """Sends payloads to the handler, shows the answers, and records those that are wrong."""

    def __init__(self, console: Console, bundles: list[Bundle]) -> None:
        self.console = console
        self.bundles = bundles
        self.wrong: list[str] = []

    def send(self, title: str, payload: dict[str, Any]) -> dict[str, Any]:
        """Send a payload; the body of the answer, or the answer itself to an SQS batch."""
        from xapi_etl_processor.lambda_function import handler

        answer = handler(payload)
        body: dict[str, Any] = json.loads(answer["body"]) if "body" in answer else answer
        sent = json.dumps(payload)
        self.console.print(f"\n[bold]{title}[/]")
        self.console.print("  sent    ", escape(sent if len(sent) < 100 else f"{sent[:97]}..."))
        self.console.print("  answered", escape(json.dumps(_brief(body), ensure_ascii=False)))
        return body

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Record a difference; the demo carries on, and fails at the end."""
        if found != wanted:
            self.wrong.append(f"{what}: {found!r}, expected {wanted!r}")

    def events(self) -> None:
        """Event mode: a notification from S3, the same one again, and a batch from SQS."""
        first, second, *_ = (bundle for bundle in self.bundles if bundle.video)
        body = self.send("A bundle was uploaded: S3 notifies", _notification(first.key))
        self.expect("video statements", body["video_events_processed"], first.video)
        body = self.send("S3 notifies again: nothing is doubled", _notification(first.key))
        self.expect("skipped", body["files_skipped"], 1)
        answer = self.send(
            "Two messages from SQS, one of them invalid: only that one is retried",
            {
                "Records": [
                    {"messageId": name, "eventSource": "aws:sqs", "body": text}
                    for name, text in (
                        ("invalid", "not JSON"),
                        ("valid", json.dumps(_notification(second.key))),
                    )
                ]
            },
        )
        self.expect("failures", answer["batchItemFailures"], [{"itemIdentifier": "invalid"}])

    def history(self) -> None:
        """Bulk mode: a dry run, everything, everything again, and one section by force."""
        section = self.bundles[0].section_id
        of_section = sum(bundle.section_id == section for bundle in self.bundles)
        dry_run = {"mode": "bulk", "section_id": section, "dry_run": True}
        body = self.send("Bulk, dry run: how much does one section hold?", dry_run)
        self.expect("found", body["files_found"], of_section)
        body = self.send("Bulk: load every bundle in the bucket", {"mode": "bulk"})
        self.expect("found", body["files_found"], len(self.bundles))
        self.expect("skipped", body["files_skipped"], 2)
        body = self.send("Bulk again: every bundle is skipped", {"mode": "bulk"})
        self.expect("skipped", body["files_skipped"], len(self.bundles))
        force = {"mode": "bulk", "section_id": section, "force_reprocess": True}
        body = self.send("Bulk, forced: one section is loaded again", force)
        self.expect("processed", body["files_processed"], of_section)

    def landed(self, clickhouse: ClickHouse) -> None:
        """Show what is in ClickHouse, and compare it with the generated bundles."""
        table = Table("section", "statements", "opened", "videos", "completed", "rejected")
        for column in table.columns:
            column.justify = "right"
        rows = clickhouse.query(_LANDED)
        for section, *numbers in rows:
            table.add_row(str(section), *(f"{number:,}" for number in numbers))
        self.console.print("\n[bold]What landed[/]: each statement once, however often it was sent")
        self.console.print(table)
        loaded: Counter[int] = Counter()
        unique: dict[int, set[bytes]] = {}
        for bundle in self.bundles:
            loaded[bundle.section_id] += bundle.video
            unique.setdefault(bundle.section_id, set()).update(bundle.video_lines)
        section = self.bundles[0].section_id
        shown = len(unique[section])
        self.console.print(
            f"Section {section}: {loaded[section]:,} statements loaded, {shown:,} shown:"
            f" {loaded[section] - shown} lines repeat another line of their bundle."
        )
        self.expect(
            "statements by section",
            {int(section): statements for section, statements, *_ in rows},
            {section: len(lines) for section, lines in unique.items()},
        )
        kinds = ("video", "other", "blank", "rejected")
        generated = tuple(sum(getattr(b, kind) for b in self.bundles) for kind in kinds)
        ledger = clickhouse.query(
            "SELECT sum(lines), sum(video), sum(other), sum(blank), sum(rejected)"
            " FROM xapi_analytics.processed_files FINAL"
        )[0]
        self.expect("lines in the ledger", ledger, (sum(generated), *generated))


def _notification(key: str) -> dict[str, Any]:
    """S3's notification of an upload, with the key encoded as S3 does it."""
    return {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": BUCKET}, "object": {"key": quote_plus(key)}},
            }
        ]
    }


def _brief(body: dict[str, Any]) -> dict[str, Any]:
    """An answer that fits a screen: without zeros, empty fields and what the payload says."""
    left_out = ("processing_mode", "section_id", "s3_bucket", "s3_key", "s3_prefix")
    return {
        name: _brief(value) if isinstance(value, dict) else value
        for name, value in body.items()
        if value and name not in left_out and name != "files"
    }


def main() -> int:
    """Run the demo; 1 if an answer or a count was wrong, or if somebody serves the folder."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    try:
        # Opening the folder first makes sure that nobody is serving it.
        ClickHouseServer(DEMO).start().stop()
    except FolderUnusable as error:
        console.print(error, style="red")
        return 1
    console.print("Rebuilding the demo in .local/demo. An earlier demo's data there is deleted.\n")
    shutil.rmtree(DEMO)
    server = ClickHouseServer(DEMO).start()
    try:
        with aws.serving() as variables:
            _set_environment(server.port, variables)
            version = ".".join(map(str, server.engine_version))
            console.print(f"started   ClickHouse {version} and S3, on loopback")
            wrong = _run(console)
    finally:
        server.stop()
    if wrong:
        console.print("\n[red]Not as expected:[/]", *map(escape, wrong), sep="\n  ")
        return 1
    console.print(
        "\nEvery count matches the generated bundles."
        f" It took {time.monotonic() - started:.0f} seconds. {_TRY_NEXT}",
        markup=False,
    )
    return 0


_TRY_NEXT = """Try next:

  make query SQL="SELECT verb, count() FROM xapi_analytics.video_statements GROUP BY verb"
  make query SQL="SELECT reason, count() FROM xapi_analytics.rejected_statements FINAL GROUP BY 1"
  make serve    serve these tables on port 9000, read-only, for clickhouse-client and drivers
  make local    open a shell with S3 and ClickHouse, to load bundles of your own
  make test     run the tests, three minutes
"""


def _set_environment(port: int, variables: dict[str, str]) -> None:
    """Point this process at the demo's services, whatever the shell has exported."""
    environment = aws.without_real_services(os.environ)
    environment |= aws.loader_environment(port, variables, BUCKET)
    os.environ.clear()
    os.environ.update(environment)


def _run(console: Console) -> list[str]:
    """Upload, migrate, send the payloads; what was not as expected."""
    from xapi_etl_processor.base.config import Settings
    from xapi_etl_processor.migrations.migrate import migrate
    from xapi_etl_processor.report.write import Options, write_all

    bundles = list(generate())
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for bundle in bundles:
        s3.put_object(Bucket=BUCKET, Key=bundle.key, Body=bundle.body)
    lines = sum(len(bundle.lines) for bundle in bundles)
    console.print(f"uploaded  {len(bundles)} bundles with {lines:,} lines to s3://{BUCKET}")
    settings = Settings.from_env(os.environ)
    console.print("migrated ", settings.clickhouse_database, "with", ", ".join(migrate(settings)))
    console.print("[dim]Answers are shown without their zeros and empty fields.[/]")

    demo = Demo(console, bundles)
    body = demo.send("Health check", {"health_check": True})
    demo.expect("healthy", body["healthy"], True)
    demo.events()
    demo.history()
    clickhouse = ClickHouse(settings)
    demo.landed(clickhouse)
    shutil.rmtree(DEMO_REPORT, ignore_errors=True)
    *_, index = write_all(clickhouse, DEMO_REPORT, Options())
    console.print("\n[bold]What was watched[/]: open this in a browser")
    console.print(" ", os.path.relpath(index))
    return demo.wrong


if __name__ == "__main__":
    sys.exit(main())
