"""Process every bundle under a prefix that is not processed yet. Bundles in the ledger are skipped,
so it is safe to repeat and to overlap with live events.

By default this process does it, without a time limit. With --function, the stack's function does
it, in as many invocations as it takes, one after the other. With --engine queue, this process or
the function only sends the names of the objects, and up to BackfillConcurrency invocations at the
same time load them: `status` shows what waits, and `verify`, once nothing does, whether all is there.

If something ends it early, such as Ctrl-C, run the same command with --resume to continue.

Examples:
  python -m xapi_etl_processor bulk --section 2001 --start 2024-01-01 --end 2024-01-31 --dry-run
  python -m xapi_etl_processor bulk --section 2001 --section 2002 --category video --resume
  python -m xapi_etl_processor bulk --start 2024-01-01 --function prod-xapi-etl-processor
  python -m xapi_etl_processor bulk --start 2020-01-01 --engine queue --dry-run
  python -m xapi_etl_processor bulk --start 2020-01-01 --engine queue
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest, RemoteFailed, S3Unordered
from xapi_etl_processor.bulk.request import FUNCTION, PARAMETERS, QUEUE, read_request
from xapi_etl_processor.commands import resume as unfinished
from xapi_etl_processor.commands.continuation import added, complete, without_stop
from xapi_etl_processor.commands.options import add_command, add_flags, add_scope
from xapi_etl_processor.commands.output import FAILED, OK, print_json, say
from xapi_etl_processor.commands.progress_bars import counting
from xapi_etl_processor.commands.remote import invoke
from xapi_etl_processor.commands.resume import Progress
from xapi_etl_processor.modes.bulk import Answer, run_bulk
from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3.objects import BUNDLE_ENDINGS
from xapi_etl_processor.storage.sections import instead

KEPT_SECONDS = 1
"""How often the progress is saved, in seconds. Our choice."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    bulk = add_command(
        commands, "bulk", _bulk, "process history, by section, dates and prefix", __doc__
    )
    add_scope(bulk)
    bulk.add_argument(
        "--inventory",
        metavar="KEY_OR_URI",
        help="key or s3:// URI of an S3 Inventory's manifest.json, to use instead of listing",
    )
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
    bulk.add_argument(
        "--resume",
        action="store_true",
        help="continue where an earlier run of the same command stopped",
    )


def _bulk(options: argparse.Namespace) -> int:
    settings = _settings(options)
    given = {
        name: value
        for name in PARAMETERS
        if (value := getattr(options, name, None)) not in (None, False)
    }
    request = read_request(given, settings)
    path = unfinished.file_of(request, options.function)
    progress = _begun(path, resume=options.resume, force=request.force_reprocess)
    ask = partial(_here, settings=settings, path=path, progress=progress)
    if options.function:
        ask = partial(_by_function, options.function, progress=progress)
    try:
        answer = _answered(given, ask, path, progress)
    except KeyboardInterrupt:
        resume = " with --resume to continue" if unfinished.read(path) else " again"
        say(f"stopped: run the same command{resume}")
        return FAILED
    except RemoteFailed as error:
        if not progress.answer:
            raise
        raise RemoteFailed(f"{error}: run the same command with --resume to continue") from None
    print_json(answer)
    if not answer["files_found"]:
        there = ""
        if not options.function:
            there = f": {instead(connections(settings).clickhouse, request.sections)}"
        say(f"nothing found under {answer['s3_prefix']!r}{_ignored(answer)}{there}")
    if not answer["complete"]:
        say("not finished; `stopped` says why. Run the same command with --resume to continue")
        return FAILED
    unfinished.remove(path)
    return OK if answer["success"] else FAILED


def _ignored(answer: Answer) -> str:
    ignored = answer["files_ignored"]
    endings = " or ".join(BUNDLE_ENDINGS)
    return f"; ignored {ignored} objects that are not {endings}" if ignored else ""


def _settings(options: argparse.Namespace) -> Settings:
    """The settings of this process. If the function does the work, none are needed here: it has its
    own, and judges by them what may be read.
    """
    if not options.function:
        return Settings.from_env(os.environ)
    anything_asked_for = {
        "S3_XAPI_BUCKET_NAME": options.s3_bucket or options.function,
        "S3_XAPI_OTHER_BUCKETS": (options.inventory or "").removeprefix("s3://").partition("/")[0],
        "S3_XAPI_PREFIX": "/",
    }
    return Settings.from_env(anything_asked_for, needs_clickhouse=False)


def _begun(path: Path, *, resume: bool, force: bool) -> Progress:
    """The progress to continue from; raises BadRequest if all would be loaded again instead."""
    earlier = unfinished.read(path)
    if earlier and resume:
        return earlier
    if earlier:
        say("an earlier run did not finish; starting over, as --resume was not given")
    elif resume and force:
        raise BadRequest(
            "nothing to resume: it has finished, or did not begin; without --resume, --force loads"
            " everything again"
        )
    elif resume:
        say("nothing to resume; starting as without --resume")
    return Progress()


def _answered(
    given: Mapping[str, Any],
    ask: Callable[[Mapping[str, Any]], Answer],
    path: Path,
    so_far: Progress,
) -> Answer:
    """The sum of all answers; the progress is saved after each."""

    def keep(total: Answer) -> None:
        so_far.answer, so_far.token = without_stop(total), total["continuation_token"] or ""
        unfinished.keep(path, so_far)

    payload = {"continuation_token": so_far.token} if so_far.token else given
    return complete(payload, ask, keep, so_far.answer)


def _by_function(name: str, payload: Mapping[str, Any], progress: Progress) -> Answer:
    answer = invoke(name, {"mode": "bulk", **payload})
    say(f"{progress.answer.get('files_found', 0) + answer['files_found']:,} objects so far")
    return answer


def _here(payload: Mapping[str, Any], settings: Settings, path: Path, progress: Progress) -> Answer:
    """The answer of this process, which saves the progress from time to time."""
    request = read_request(payload, settings)
    run = Run(settings, connections(settings), "bulk", request.wanted)
    kept = time.monotonic()
    statements = 0
    with counting() as show:

        def on_outcome(outcome: Outcome, so_far: Answer) -> None:
            nonlocal kept, statements
            statements += outcome.counts.video + outcome.counts.other
            show(outcome.obj.key, f" {statements:,} statements")
            if time.monotonic() - kept > KEPT_SECONDS:
                total = added(progress.answer, so_far)
                token = so_far["continuation_token"]
                unfinished.keep(path, Progress(token, total))
                kept = time.monotonic()

        try:
            return run_bulk(request, run, on_outcome)
        except S3Unordered:
            # What was kept may lie behind keys that the store has not named.
            unfinished.remove(path)
            raise
