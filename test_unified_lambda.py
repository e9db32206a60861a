#!/usr/bin/env python3
"""The main job from end to end on this machine: no account, no server, the real handler.

    python3 test_unified_lambda.py

Starts S3 (moto) and the current ClickHouse engine (chDB) on loopback, uploads generated bundles,
sends the handler what AWS would send it, in every mode, and checks the answers against what was
generated. What landed stays in .local/clickhouse until the next run. Exit code 0: all is well.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from typing import Any
from urllib.parse import quote_plus

try:
    import boto3
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from local import aws
    from local.bundles import Bundle, generate
    from local.clickhouse_server import DATA, ClickHouseServer, FolderInUse
    from xapi_etl_processor.clickhouse_client import ClickHouse
except ImportError as error:
    sys.exit(f"{error}. Install what a local run needs: pip install -r requirements.txt")

BUCKET = "xapi-bundles"

_LANDED = """
SELECT section_id, statements, viewers, videos, minutes, rejected
FROM
(
    SELECT section_id, sum(n) AS statements, uniqExact(user_id) AS viewers,
        uniqExact(video_url) AS videos, round(sum(seconds) / 60, 1) AS minutes
    FROM
    (
        -- Stretches played grow during a session: the last one says it all.
        SELECT section_id, user_id, video_url, session_id, attempt_guid,
            count() AS n, max(video_play_time) AS seconds
        FROM xapi_analytics.video_events FINAL
        GROUP BY section_id, user_id, video_url, session_id, attempt_guid
    )
    GROUP BY section_id
) AS watched
LEFT JOIN
(
    SELECT toUInt64OrZero(extract(source_file, 'section/([0-9]+)/')) AS section_id,
        count() AS rejected
    FROM xapi_analytics.rejected_statements FINAL
    GROUP BY section_id
) AS refused USING section_id
ORDER BY section_id
"""


class Demonstration:
    """Sends payloads to the handler, shows the answers, and notes what is not as expected."""

    def __init__(self, console: Console, bundles: list[Bundle]) -> None:
        self.console = console
        self.bundles = bundles
        self.wrong: list[str] = []

    def send(self, title: str, payload: dict[str, Any]) -> dict[str, Any]:
        """The body of the handler's answer, or the answer itself to an SQS batch."""
        from xapi_etl_processor.lambda_function import handler

        answer = handler(payload)
        body: dict[str, Any] = json.loads(answer["body"]) if "body" in answer else answer
        sent, got = json.dumps(payload), json.dumps(_brief(body), ensure_ascii=False)
        self.console.print(f"\n[bold]{title}[/]")
        self.console.print("  sent    ", escape(sent if len(sent) < 150 else f"{sent[:147]}..."))
        self.console.print("  answered", escape(got), "[dim](shortened)[/]")
        return body

    def expect(self, what: str, found: object, wanted: object) -> None:
        """Note a difference; the run goes on, and fails at its end."""
        if found != wanted:
            self.wrong.append(f"{what}: {found!r}, expected {wanted!r}")

    def events(self) -> None:
        """A bundle was uploaded: S3's notification, its repetition, and a batch from SQS."""
        first, second, *_ = (bundle for bundle in self.bundles if bundle.video)
        body = self.send("Event: a bundle was uploaded", _notification(first.key))
        self.expect("video statements", body["video_events_processed"], first.video)
        body = self.send("Event: the same notification again", _notification(first.key))
        self.expect("skipped", body["files_skipped"], 1)
        answer = self.send(
            "Event: two messages from SQS, one of them poison",
            {
                "Records": [
                    {"messageId": name, "eventSource": "aws:sqs", "body": text}
                    for name, text in (
                        ("poison", "no JSON"),
                        ("good", json.dumps(_notification(second.key))),
                    )
                ]
            },
        )
        self.expect("failures", answer["batchItemFailures"], [{"itemIdentifier": "poison"}])

    def history(self) -> None:
        """Bulk: look, do, repeat, force."""
        section = self.bundles[0].section_id
        of_section = sum(bundle.section_id == section for bundle in self.bundles)
        look = {"mode": "bulk", "section_id": section, "dry_run": True}
        body = self.send("Bulk: what would one section take?", look)
        self.expect("found", body["files_found"], of_section)
        body = self.send("Bulk: all of history", {"mode": "bulk"})
        self.expect("found", body["files_found"], len(self.bundles))
        self.expect("already there", body["files_skipped"], 2)
        body = self.send("Bulk: all of history again", {"mode": "bulk"})
        self.expect("skipped", body["files_skipped"], len(self.bundles))
        force = {"mode": "bulk", "section_id": section, "force_reprocess": True}
        body = self.send("Bulk: one section again, by force", force)
        self.expect("processed", body["files_processed"], of_section)

    def landed(self, clickhouse: ClickHouse) -> None:
        """Show what is in ClickHouse, and compare it with what was generated."""
        table = Table("section", "statements", "viewers", "videos", "minutes watched", "rejected")
        for column in table.columns:
            column.justify = "right"
        rows = clickhouse.query(_LANDED)
        for section, *numbers in rows:
            table.add_row(str(section), *(f"{number:,}" for number in numbers))
        self.console.print("\n[bold]What landed[/] (each statement once, however often it came)")
        self.console.print(table)
        unique: dict[int, set[bytes]] = {}
        for bundle in self.bundles:
            unique.setdefault(bundle.section_id, set()).update(bundle.video_lines)
        self.expect(
            "statements by section",
            {section: statements for section, statements, *_ in rows},
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
    """What S3 sends about an upload; it encodes keys as a form would."""
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
    """The part of an answer that fits a screen."""
    left_out = ("processing_mode", "section_id", "blank_lines", "s3_bucket", "s3_key", "files")
    return {name: value for name, value in body.items() if name not in left_out and value != []}


def main() -> int:
    """Run everything; 1 if an answer or a count was not as expected."""
    console = Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    try:
        # Opened first: what somebody is being served must not be taken away.
        ClickHouseServer(DATA).start().stop()
    except FolderInUse as error:
        console.print(error, style="red")
        return 1
    shutil.rmtree(DATA, ignore_errors=True)
    server = ClickHouseServer(DATA).start()
    version = ".".join(map(str, server.engine_version))
    console.print(f"ClickHouse {version} and S3 are up on loopback")
    try:
        with aws.serving() as variables:
            _set_environment(server.port, variables)
            wrong = _demonstrate(console)
    finally:
        server.stop()
    if wrong:
        console.print("\n[red]Not as expected:[/]", *map(escape, wrong), sep="\n  ")
        return 1
    console.print(
        f"\nAll as generated, in {time.monotonic() - started:.0f} s."
        " The data stays in .local/clickhouse. Try next:\n"
        '  make query SQL="SELECT verb, count() FROM xapi_analytics.video_events FINAL GROUP BY 1"'
        "\n"
        '  make query SQL="SELECT reason, count() FROM xapi_analytics.rejected_statements FINAL'
        ' GROUP BY 1"\n'
        "  make serve          the same data on port 9000, for clickhouse-client and drivers\n"
        "  make test           every promise, checked",
        markup=False,
    )
    return 0


def _set_environment(port: int, variables: dict[str, str]) -> None:
    """Set what is this run's own, whatever the shell has exported for another."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "CLICKHOUSE_", "POWERTOOLS_")):
            del os.environ[name]
    os.environ.update(aws.loader_environment(port, variables, BUCKET))


def _demonstrate(console: Console) -> list[str]:
    """Upload, migrate, send; what was not as expected."""
    from xapi_etl_processor.config import Settings
    from xapi_etl_processor.storage.migrations import migrate

    bundles = list(generate())
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for bundle in bundles:
        s3.put_object(Bucket=BUCKET, Key=bundle.key, Body=bundle.body)
    console.print(f"uploaded {len(bundles)} bundles to s3://{BUCKET}")
    settings = Settings.from_env(os.environ)
    console.print("applied", ", ".join(migrate(settings)))

    demonstration = Demonstration(console, bundles)
    body = demonstration.send("Health check", {"health_check": True})
    demonstration.expect("healthy", body["healthy"], True)
    demonstration.events()
    demonstration.history()
    demonstration.landed(ClickHouse(settings))
    return demonstration.wrong


if __name__ == "__main__":
    sys.exit(main())
