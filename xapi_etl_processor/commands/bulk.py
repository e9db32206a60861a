"""Process every bundle under a prefix that is not processed yet. Bundles in the ledger are skipped,
so it is safe to repeat and to overlap with live events.

By default this process does it, without a time limit. With --function, the stack's function does
it, in as many invocations as it takes, one after the other. With --engine queue, this process or
the function only sends the names of the objects, and up to BackfillConcurrency invocations at the
same time load them. `status` shows what waits, and `verify` whether all was loaded.

What was loaded is skipped by the next run of the same command. Where much is skipped, or --force
loads all again, go on with --token instead: whatever ends it early says which.

Examples:
  python -m xapi_etl_processor bulk --section 2001 --start 2024-01-01 --end 2024-01-31 --dry-run
  python -m xapi_etl_processor bulk --section 2001 --section 2002 --category video
  python -m xapi_etl_processor bulk --start 2024-01-01 --function prod-xapi-etl-processor
  python -m xapi_etl_processor bulk --start 2020-01-01 --engine queue --dry-run
  python -m xapi_etl_processor bulk --start 2020-01-01 --engine queue
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import RemoteFailed
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.bulk.request import FUNCTION, PARAMETERS, QUEUE, BulkRequest, read_request
from xapi_etl_processor.commands.options import add_command, add_flags, add_scope
from xapi_etl_processor.commands.output import FAILED, OK, counting, print_json, say
from xapi_etl_processor.commands.remote import sums
from xapi_etl_processor.modes.bulk import Answer, run_bulk
from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import BUNDLE_ENDINGS
from xapi_etl_processor.storage.sections import instead


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    bulk = add_command(
        commands, "bulk", _bulk, "process history, by section, dates and prefix", __doc__
    )
    add_scope(bulk)
    add_flags(bulk, "list and count what would be processed, but read and write nothing")
    bulk.add_argument(
        "--engine",
        choices=(FUNCTION, QUEUE),
        help="queue: send the objects to BACKFILL_QUEUE_URL, and the stack's function loads them,"
        " several at a time; function, the default: load them one after the other",
    )
    bulk.add_argument(
        "--function",
        metavar="NAME",
        help="let this Lambda function do it, with its own settings; needs the permission"
        " lambda:InvokeFunction",
    )


def _bulk(options: argparse.Namespace) -> int:
    settings = _settings(options)
    given = {
        name: value
        for name in PARAMETERS
        if (value := getattr(options, name, None)) not in (None, False)
    }
    request = read_request(given, settings)
    answer: Answer = {}
    if not options.function:
        answer = _here(request, settings)
    else:
        try:
            for answer in sums(options.function, {"mode": "bulk", **given}):
                say(f"{counted(answer['files_found'], 'object')} so far")
        except (RemoteFailed, KeyboardInterrupt):
            if token := answer.get("continuation_token"):
                # With what has failed until now, which is not tried again behind the token.
                print_json(answer)
                _say_how_to_go_on(token)
            raise
    print_json(answer)
    if not answer["files_found"]:
        there = ""
        if not options.function:
            there = f": {instead(connections(settings).clickhouse, request.sections)}"
        say(f"nothing found under {answer['s3_prefix']!r}{_ignored(answer)}{there}")
    if months := answer.get("dropped_months"):
        say(f"dropped once: {', '.join(months)}; drop-months drops what is loaded again")
    if not answer["complete"]:
        say("not finished: `stopped` says why")
        _say_how_to_go_on(answer["continuation_token"])
        return FAILED
    return OK if answer["success"] else FAILED


def _say_how_to_go_on(token: str) -> None:
    say(f"to go on behind what is done, run the same command with --token {token}")


def _ignored(answer: Answer) -> str:
    ignored = answer["files_ignored"]
    endings = " or ".join(BUNDLE_ENDINGS)
    return f"; ignored {counted(ignored, 'object')} not ending in {endings}" if ignored else ""


def _settings(options: argparse.Namespace) -> Settings:
    """The settings of this process; the function has its own, and judges by them."""
    if not options.function:
        return Settings.from_env(os.environ)
    anything_asked_for = {
        "S3_XAPI_BUCKET_NAME": options.s3_bucket or options.function,
        "S3_XAPI_PREFIX": "/",
    }
    return Settings.from_env(anything_asked_for, needs_clickhouse=False)


def _here(request: BulkRequest, settings: Settings) -> Answer:
    """The answer of this process, which has no time limit."""
    run = Run(settings, connections(settings), "bulk", request.wanted)
    reached, failed = request.after, False
    count = counting()

    def on_outcome(outcome: Outcome, position: str) -> None:
        nonlocal reached, failed
        failed = failed or outcome.failed
        # What has failed is tried again, since nobody sees this run's answer.
        reached = reached if failed else position
        count(outcome.counts.video + outcome.counts.other)

    try:
        return run_bulk(request, run, on_outcome)
    except KeyboardInterrupt:
        if reached != request.after:
            _say_how_to_go_on(request.token_after(reached))
        raise
