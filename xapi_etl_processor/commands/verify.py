"""Compare every bundle under a prefix with the ledger and with its rows. Writes nothing without
--repair.

Examples:
  python -m xapi_etl_processor verify --section 2001
  python -m xapi_etl_processor verify --start 2024-01-01 --end 2024-01-31 --content --repair

Exit code 0: nothing is missing, as far as was asked; 1: something is, or could not be compared;
2: the request or the configuration is wrong. docs/operations.md says what each finding means.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.bulk.request import MAX_AGE_MINUTES
from xapi_etl_processor.commands.options import add_command, add_scope, asked_for
from xapi_etl_processor.commands.output import FAILED, OK, counting, print_json
from xapi_etl_processor.common import examine
from xapi_etl_processor.modes.verify import SHOWN_FINDINGS, run_verify
from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3.objects import S3Object

LOOKING_SECONDS = 15
"""How long the objects that are missing are read, to tell which can never load. Our limit."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "compare S3 with what is stored; with --repair, load what is missing"
    compare = add_command(commands, "verify", _verify, summary, __doc__)
    compare.set_defaults(verify=True)
    add_scope(compare)
    flag = partial(compare.add_argument, action="store_true")
    flag("--content", help="also read the objects again, and look for each of their statements")
    flag("--repair", help="load what is missing, changed or differing, and compare it again")
    flag("--replace", help="with --repair, also remove what the objects' earlier versions left")
    compare.add_argument(
        "--min-age-minutes",
        type=int,
        metavar="N",
        help=f"do not call younger objects missing: they may be on their way (0 to"
        f" {MAX_AGE_MINUTES}; default 0)",
    )
    flag("--allow-empty", help="exit code 0 also if there is nothing to compare")
    flag("--continue", help="continue where the last interrupted --continue stopped")
    flag("--json", help="the answer as the function gives it")


def _verify(options: argparse.Namespace) -> int:
    request, run = asked_for(options)
    count = counting()
    body = run_verify(request, run, lambda _: count(0))
    if options.json:
        print_json(body)
    else:
        hopeless = [] if body["repair"] else _hopeless(body, request.bucket, run)
        _print(body, f"s3://{request.bucket}/{request.prefix}", hopeless)
    return OK if body["success"] and body["complete"] else FAILED


def _hopeless(body: dict[str, Any], bucket: str, run: Run) -> list[Outcome]:
    """The shown objects that are not loaded and never can be, as far as that is soon told."""
    kinds = ("missing", "changed")
    shown = [S3Object(bucket, one["key"]) for one in body["findings"] if one["finding"] in kinds]
    soon = replace(run, deadline=run.deadline.within(LOOKING_SECONDS))
    return [outcome for outcome in examine(shown, soon) if outcome.poison]


def _print(body: dict[str, Any], where: str, hopeless: Sequence[Outcome]) -> None:
    """The answer for people: the verdict, the findings, and what to do next."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    wrong = body["objects_missing"]
    empty = not body["objects_checked"]
    verdict = f"{wrong:,} not all stored" if wrong else "nothing" if empty else "nothing missing"
    how = " with their content" if body["content"] else ""
    compared = f"{counted(body['objects_checked'], 'object')} compared{how}, {verdict}"
    # Names are never broken by us, so that they can be copied.
    console.print(f"{where}: {compared}", soft_wrap=True)
    if body["repaired"]:
        console.print(f"{counted(body['repaired'], 'object')} repaired: all stored now")
    for one in body["findings"]:
        console.print(f"{one['finding']:<10} {one['key']}", soft_wrap=True)
        lines = one.get("lines", ())
        which = f"; line{'s'[: len(lines) - 1]} {', '.join(map(str, lines))}" if lines else ""
        console.print(f"           {one['why']}{which}", soft_wrap=True)
    for one in body["failures"]:
        console.print(f"failed     {one['key']}\n           {one['error']}", soft_wrap=True)
    for outcome in hopeless:
        console.print(f"cannot be loaded: {outcome.error}", soft_wrap=True)
    for note in _notes(body, len(hopeless)):
        console.print(note)


def _notes(body: dict[str, Any], hopeless: int) -> Iterator[str]:
    """What the numbers do not say by themselves, and what to do next."""
    shown = len(body["findings"])
    found = body["objects_missing"] + body["unproven"] + body["recent"]
    if found > shown:
        are = counted(found - shown, "more finding is", "more findings are")
        yield f"{are} not shown: narrow --section, --start or --end."
    if body["unproven"]:
        yield (
            f"{body['unproven']:,} unproven: fewer rows than the ledger counts. Statements came"
            " twice, or are lost; --content tells which."
        )
    if body["dropped"]:
        yield (f"{body['dropped']:,} dropped: of months that were dropped, and not loaded again.")
    if body["recent"]:
        yield f"{body['recent']:,} recent: may be on the way. Verify again later."
    if body["gone"]:
        are = counted(body["gone"], "object in the ledger is", "objects in the ledger are")
        yield f"{are} no longer in S3; rows stay. `--json` names the first {SHOWN_FINDINGS}."
    if body["objects_missing"] > hopeless and not body["repair"]:
        them = "the others" if hopeless else "them"
        yield f"To load {them}: the same command with --repair."
    if not body["complete"]:
        token = f"--token {body['continuation_token']}"
        how = "the same command" if body.get("continue") else token
        yield f"Not all was compared. To go on: {how}"
