"""Say where a statement is, or why it is nowhere: stored, voided, rejected, of a forgotten learner,
not about a video, in an object that is not loaded, or in no bundle. It asks the tables and, if they
do not settle it, reads the bundles. Writes nothing, and shows neither statements nor people.

Examples:
  python -m xapi_etl_processor find 6690e6c9-3ef0-4ed3-8b37-7f3964730bee
  python -m xapi_etl_processor find 6690e6c9-... --section 2001 --start 2024-01-01 --end 2024-01-07

Exit code 0: found; 1: in no bundle that was searched; 2: the request or the configuration is wrong.
docs/operations.md says what to do about each answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.bulk.selection import select
from xapi_etl_processor.commands.options import add_command, add_scope, an_id, asked_for
from xapi_etl_processor.commands.output import FAILED, OK, counting, say
from xapi_etl_processor.explain.find import Cause, Place, in_objects, in_tables
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.listing import Progress
from xapi_etl_processor.s3.objects import BUNDLE_ENDINGS, S3Object
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import instead

SHOWN_ERRORS = 5
"""Objects that could not be read and are named. Our limit."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "say where a statement is, or why it is not; writes nothing"
    find = add_command(commands, "find", _find, summary, __doc__)
    find.add_argument(
        "id", type=an_id, metavar="STATEMENT_ID", help="its id, a UUID in any spelling"
    )
    add_scope(find)


def _find(options: argparse.Namespace) -> int:
    request, run = asked_for(options)
    check_whole_results(run.connections.clickhouse)
    places = in_tables(options.id, request, run.connections.clickhouse)
    _show(places)
    # The voided statement itself may be in an object that is not loaded.
    if any(place.cause is not Cause.VOIDED for place in places):
        return OK
    where = f"s3://{request.bucket}/{request.prefix}"
    say(f"{'no row of it is stored' if places else 'not in the tables'}: searching {where}")
    return _search(options.id, request, run, found=bool(places))


def _search(wanted: str, request: BulkRequest, run: Run, *, found: bool) -> int:
    """Search the bundles, say at once what is found, and at the end or at Ctrl-C how many were."""
    listed = Progress()

    def selected() -> Iterator[S3Object]:
        for step in select(request, run, listed):
            if step.obj:
                yield step.obj
            elif step.stop:
                say(f"not all was searched: {step.stop.text}")

    searched = failed = 0
    reached = request.after
    count = counting()
    try:
        for obj, places, error in in_objects(wanted, selected(), run):
            searched, reached = searched + 1, obj.key
            count(0)
            _show(places)
            found = found or bool(places)
            failed += bool(error)
            if error and failed <= SHOWN_ERRORS:
                say(error)
    except KeyboardInterrupt:
        verdict = "stopped"
        token = request.token_after(reached)
        say(f"to go on behind what was searched, run the same command with --token {token}")
    else:
        verdict = "searched" if found else "not found"
        if not searched:
            say(instead(run.connections.clickhouse, request.sections))
    _conclude(verdict, request, searched, failed, listed.ignored)
    return OK if found else FAILED


def _conclude(verdict: str, request: BulkRequest, searched: int, failed: int, ignored: int) -> None:
    bundles = counted(searched, "bundle")
    unread = f", of which {failed:,} could not be read" if failed else ""
    print(f"{verdict}: {bundles} under s3://{request.bucket}/{request.prefix}{unread}")
    if ignored:
        others = counted(ignored, "object")
        say(f"not searched, because not named {' or '.join(BUNDLE_ENDINGS)}: {others}")


def _show(places: list[Place]) -> None:
    from xapi_etl_processor.explain.show import visible

    for place in places:
        # A name is never broken by us, so that it can be copied.
        print(f"{place.cause:<11}{visible(place.source_file)} line {place.line}")
        print(f"{'':<11}{visible(place.words)}")
        if place.command:
            print(f"{'':<11}to load it: {visible(place.command)}")
    sys.stdout.flush()
