"""The command line, for people: migrate, event, bulk, report and health."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clickhouse_driver import errors

from xapi_etl_processor import __version__
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import BadRequest, ConfigurationError, XapiEtlError
from xapi_etl_processor.modes import health
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.modes.bulk_request import PARAMETERS, read_request
from xapi_etl_processor.modes.event import run_event
from xapi_etl_processor.run import Outcome, Run, connections
from xapi_etl_processor.sources.objects import S3Object
from xapi_etl_processor.sources.payloads import Delivery, Message
from xapi_etl_processor.telemetry import logger, set_log_level

if TYPE_CHECKING:
    from collections.abc import Iterator

OK, FAILED, USAGE = 0, 1, 2

_DESCRIPTION = """\
Carry xAPI video statements from S3 into ClickHouse, as the Lambda function does.

Settings come from the environment, as in Lambda: CLICKHOUSE_HOST, S3_XAPI_BUCKET_NAME and, where
the defaults do not fit, CLICKHOUSE_PORT, CLICKHOUSE_USERNAME, CLICKHOUSE_PASSWORD,
CLICKHOUSE_SECURE, CLICKHOUSE_DATABASE, LOG_LEVEL (default here: WARNING). AWS credentials are found
as the aws command finds them.
"""
_EPILOG = """\
examples:
  python -m xapi_etl_processor migrate
  python -m xapi_etl_processor event s3://my-bucket/section/2001/video/2024-01-01T12-00-00Z_1.jsonl
  python -m xapi_etl_processor bulk --section 2001 --start 2024-01-01 --end 2024-01-31 --dry-run
  python -m xapi_etl_processor report --section 2001 -o report.html
  python -m xapi_etl_processor health

exit codes: 0 success; 1 something failed, and the answer says what; 2 the request or the
configuration is wrong. Answers are JSON on standard output, logs and progress go to standard error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    set_log_level(os.environ, default="WARNING")
    logger.handlers[0].setStream(sys.stderr)  # type: ignore[attr-defined]  # a StreamHandler
    command: Callable[[argparse.Namespace, Settings], int] = options.command
    try:
        return command(options, Settings.from_env(os.environ))
    except XapiEtlError as error:
        print(f"xapi_etl_processor: {error}", file=sys.stderr)
        return USAGE if isinstance(error, BadRequest | ConfigurationError) else FAILED
    except KeyboardInterrupt:
        print(
            "xapi_etl_processor: stopped; run it again for what is not stored yet", file=sys.stderr
        )
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m xapi_etl_processor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    migrate = commands.add_parser(
        "migrate",
        help="create the database and its tables, or bring them up to date",
        description="Create the database and its tables, or bring them up to date. Safe to repeat.",
    )
    migrate.set_defaults(command=_migrate)

    event = commands.add_parser(
        "event",
        help="process named objects, as if they had just been uploaded",
        description="Process named objects, as if they had just been uploaded.",
    )
    event.add_argument("uri", nargs="+", help="s3://bucket/key, the key as it is, not URL-encoded")
    _add_flags(event, "read and count, but write nothing")
    event.set_defaults(command=_event)

    backfill = commands.add_parser(
        "bulk",
        help="process history, by section, dates and prefix",
        description="Process every bundle under a prefix that is not processed yet. Bundles in the"
        " ledger are skipped, so it is safe to repeat and to overlap with live events.",
    )
    backfill.add_argument("--section", dest="section_id", metavar="ID", help="one section only")
    backfill.add_argument(
        "--start", dest="start_date", metavar="DAY", help="first UTC day, such as 2024-01-01"
    )
    backfill.add_argument("--end", dest="end_date", metavar="DAY", help="last UTC day, included")
    backfill.add_argument(
        "--prefix",
        dest="s3_prefix",
        metavar="FOLDER",
        help="what to list (default: S3_XAPI_PREFIX)",
    )
    backfill.add_argument(
        "--bucket",
        dest="s3_bucket",
        help="one of S3_XAPI_OTHER_BUCKETS instead of S3_XAPI_BUCKET_NAME",
    )
    backfill.add_argument(
        "--token",
        dest="continuation_token",
        help="continue where an answer of the function stopped",
    )
    _add_flags(backfill, "list and count what would be processed, but read and write nothing")
    backfill.set_defaults(command=_bulk)

    _add_report(commands)

    check = commands.add_parser(
        "health",
        help="check that the bucket can be read and the tables are current",
        description="Check all that the function needs of S3 and ClickHouse; writes nothing.",
    )
    check.set_defaults(command=_health)
    return parser


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write a page that shows what was watched",
        description="Write what was watched as a page that any browser opens, without a network."
        " docs/watching.md says what the numbers mean. Only ClickHouse is read.",
    )
    of = report.add_mutually_exclusive_group(required=True)
    of.add_argument("--section", metavar="ID", help="one section")
    of.add_argument("--all", action="store_true", help="each section, and an index of them")
    report.add_argument(
        "--since",
        type=date.fromisoformat,
        metavar="DAY",
        help="only statements on or after this UTC day, such as 2024-01-01",
    )
    report.add_argument(
        "-o", "--output", type=Path, required=True, help="the file to write; with --all, the folder"
    )
    report.add_argument(
        "--csv", type=Path, metavar="FOLDER", help="also write the numbers as CSV files"
    )
    who = report.add_mutually_exclusive_group()
    who.add_argument(
        "--learners", action="store_true", help="name who has not watched a video (personal data)"
    )
    who.add_argument(
        "--hide-below",
        type=_number_of_viewers,
        default=0,
        metavar="N",
        help="hide the numbers of groups of fewer than N viewers",
    )
    report.set_defaults(command=_report)


def _number_of_viewers(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of viewers: use 0 or more")
    return int(text)


def _add_flags(parser: argparse.ArgumentParser, dry_run: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_argument(
        "--force",
        dest="force_reprocess",
        action="store_true",
        help="also process objects that are in the ledger already",
    )


def _migrate(_: argparse.Namespace, settings: Settings) -> int:
    from clickhouse_migrations.exceptions import MigrationException

    from xapi_etl_processor.storage.migrations import migrate

    where = f"{settings.clickhouse_database} on {settings.clickhouse_host}"
    try:
        applied = migrate(settings)
    except (errors.Error, MigrationException, EOFError, OSError) as error:
        reason = str(error).partition("Stack trace")[0].strip()
        print(f"xapi_etl_processor: {where} not migrated: {reason}", file=sys.stderr)
        return FAILED
    for name in applied:
        print(f"applied {name} to {where}")
    if not applied:
        print(f"{where} is up to date")
    return OK


def _event(options: argparse.Namespace, settings: Settings) -> int:
    objects = tuple(_object(uri) for uri in options.uri)
    run = Run(
        settings,
        connections(settings),
        "event",
        force=options.force_reprocess,
        dry_run=options.dry_run,
    )
    result = run_event(Delivery((Message("", objects),), direct=True), run)
    _print(result.body)
    return FAILED if result.failed_messages else OK


def _object(uri: str) -> S3Object:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not bucket or not key:
        raise BadRequest(f"{uri!r} is not an object: use s3://bucket/key")
    return S3Object(bucket, key)


def _bulk(options: argparse.Namespace, settings: Settings) -> int:
    given = {name: getattr(options, name) for name in PARAMETERS}
    request = read_request(given, settings)
    run = Run(settings, connections(settings), "bulk", force=request.force, dry_run=request.dry_run)
    with _progress() as on_outcome:
        body = run_bulk(request, run, on_outcome)
    _print(body)
    if not body["files_found"]:
        print(f"xapi_etl_processor: nothing found under {body['s3_prefix']!r}", file=sys.stderr)
    return OK if body["success"] and body["complete"] else FAILED


def _report(options: argparse.Namespace, settings: Settings) -> int:
    from xapi_etl_processor.report.write import Options, write_all, write_section

    clickhouse = ClickHouse(settings)
    chosen = Options(options.since, options.hide_below, options.learners)
    try:
        if options.all:
            for path in write_all(clickhouse, options.output, chosen, options.csv):
                print(path)
            return OK
        section = write_section(clickhouse, options.section, options.output, chosen, options.csv)
    except OSError as error:
        print(f"xapi_etl_processor: cannot write the report: {error}", file=sys.stderr)
        return FAILED
    finally:
        clickhouse.disconnect()
    print(options.output)
    if not section.videos:
        print(
            f"xapi_etl_processor: no video statements of section {options.section!r} are stored:"
            " the report is empty",
            file=sys.stderr,
        )
    return OK


def _health(_: argparse.Namespace, settings: Settings) -> int:
    body = health.check(settings, connections(settings))
    _print(body)
    return OK if body["healthy"] else FAILED


def _print(body: dict[str, Any]) -> None:
    print(json.dumps(body, indent=2, ensure_ascii=False))


@contextmanager
def _progress() -> Iterator[Callable[[Outcome], None]]:
    """A progress bar on standard error; gives a function to call with every outcome."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} objects"),
        TextColumn("{task.fields[statements]:,} statements"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[key]}", style="dim"),
    )
    statements = 0
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("bulk", total=None, statements=0, key="listing")

        def on_outcome(outcome: Outcome) -> None:
            nonlocal statements
            statements += outcome.counts.video + outcome.counts.other
            bar.update(task, advance=1, statements=statements, key=outcome.obj.key[-60:])

        yield on_outcome
