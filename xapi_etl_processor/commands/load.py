"""The commands event and bulk: named objects, and history."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from xapi_etl_processor.commands.answers import FAILED, OK, USAGE, print_json, say
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import BadRequest
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.modes.bulk_request import FUNCTION, PARAMETERS, QUEUE, read_request
from xapi_etl_processor.modes.event import run_event
from xapi_etl_processor.run import Outcome, Run, connections
from xapi_etl_processor.sources import files
from xapi_etl_processor.sources.objects import BUNDLE_ENDINGS, S3Object
from xapi_etl_processor.sources.payloads import Delivery, Message

_EVENT = """\
Process named objects, as if they had just been uploaded, or files on this machine: their paths say
what keys say.
"""
_EVENT_EXAMPLES = """\
examples:
  python -m xapi_etl_processor event s3://my-bucket/section/2001/video/2024-01-01T12-00-00Z_1.jsonl
  python -m xapi_etl_processor event section/2001/video/*.jsonl.gz --dry-run
"""


_BULK = """\
Process every bundle under a prefix that is not processed yet. Bundles in the ledger are skipped, so
it is safe to repeat and to overlap with live events.
"""
_BULK_EXAMPLES = """\
examples:
  python -m xapi_etl_processor bulk --section 2001 --start 2024-01-01 --end 2024-01-31 --dry-run
  python -m xapi_etl_processor bulk --section 2001 --start 2024-01-01 --end 2024-01-31
  python -m xapi_etl_processor bulk --engine queue --start 2020-01-01 --dry-run
"""


def add_to(commands: Any) -> None:
    """Add the commands to the parser."""
    event = commands.add_parser(
        "event",
        help="process named objects or files, as if they had just been uploaded",
        description=_EVENT,
        epilog=_EVENT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    event.add_argument(
        "uri", nargs="+", help="s3://bucket/key, not URL-encoded, or the path of a file"
    )
    _add_flags(event, "read and count, but write nothing")
    event.set_defaults(command=_event)

    backfill = commands.add_parser(
        "bulk",
        help="process history, by section, dates and prefix",
        description=_BULK,
        epilog=_BULK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_scope(backfill)
    _add_flags(backfill, "list and count what would be processed, but read and write nothing")
    backfill.add_argument(
        "--engine",
        choices=(FUNCTION, QUEUE),
        help="queue: send the objects to BACKFILL_QUEUE_URL, and the stack's function loads them,"
        " several at a time; function, the default: load them here",
    )
    backfill.set_defaults(command=_bulk)


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Add what says which objects of a bucket a command is about."""
    parser.add_argument("--section", dest="section_id", metavar="ID", help="one section only")
    parser.add_argument(
        "--start", dest="start_date", metavar="DAY", help="first UTC day, such as 2024-01-01"
    )
    parser.add_argument("--end", dest="end_date", metavar="DAY", help="last UTC day, included")
    parser.add_argument(
        "--prefix",
        dest="s3_prefix",
        metavar="FOLDER",
        help="what to list (default: S3_XAPI_PREFIX)",
    )
    parser.add_argument(
        "--bucket",
        dest="s3_bucket",
        help="one of S3_XAPI_OTHER_BUCKETS instead of S3_XAPI_BUCKET_NAME",
    )
    parser.add_argument(
        "--token",
        dest="continuation_token",
        help="continue where an answer of the function stopped",
    )


def _add_flags(parser: argparse.ArgumentParser, dry_run: str) -> None:
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_argument(
        "--force",
        dest="force_reprocess",
        action="store_true",
        help="also process objects that are in the ledger already",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="also remove the rows of an object's earlier versions that its current one does not"
        " hold; needs the right ALTER DELETE",
    )


def _event(options: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    objects = tuple(object_of(uri) for uri in options.uri)
    run = Run(
        settings,
        connections(settings),
        "event",
        force=options.force_reprocess,
        dry_run=options.dry_run,
        replace=options.replace,
    )
    if run.replace and run.dry_run:
        raise BadRequest("--replace does not go with --dry-run, which writes nothing")
    result = run_event(Delivery((Message("", objects),), direct=True), run)
    print_json(result.body)
    if result.bad_request:
        return USAGE
    return FAILED if result.failed_messages else OK


def object_of(uri: str) -> S3Object:
    """The object or file that a URI or a path names; raises BadRequest if it names none."""
    if not uri.startswith("s3://"):
        if "://" in uri.removeprefix("file://"):
            raise BadRequest(f"{uri!r} is not an object: use s3://bucket/key, or a file's path")
        return files.named(uri)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise BadRequest(f"{uri!r} is not an object: use s3://bucket/key, or bulk for a folder")
    return S3Object(bucket, key)


def _bulk(options: argparse.Namespace) -> int:
    settings = Settings.from_env(os.environ)
    given = {name: getattr(options, name, None) for name in PARAMETERS}
    request = read_request(given, settings)
    run = Run(
        settings,
        connections(settings),
        "bulk",
        force=request.force,
        dry_run=request.dry_run,
        replace=request.replace,
    )
    with _progress() as on_outcome:
        body = run_bulk(request, run, on_outcome)
    print_json(body)
    if not body["files_found"]:
        say(f"nothing found under {body['s3_prefix']!r}{_passed_over(body['files_ignored'])}")
    return OK if body["success"] and body["complete"] else FAILED


def _passed_over(ignored: int) -> str:
    if not ignored:
        return ""
    return f"; passed over, as they end in none of {', '.join(BUNDLE_ENDINGS)}: {ignored}"


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
