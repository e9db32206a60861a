"""Work out what was watched of each video, and store it for the view section_videos, which answers
questions over all sections. Other views are for one section.

A section's former numbers stay until its new ones are complete. You can interrupt and repeat it.

Examples:
  python -m xapi_etl_processor summarize
  python -m xapi_etl_processor summarize --section 2001
  python -m xapi_etl_processor summarize --function prod-xapi-etl-processor
"""

from __future__ import annotations

import argparse
from typing import Any

from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, print_json, say
from xapi_etl_processor.commands.remote import sums
from xapi_etl_processor.modes.bulk import Answer
from xapi_etl_processor.modes.summarize import read_summary_request, run_summarize


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "work out the numbers of each video once, for questions over all sections"
    one = add_command(commands, "summarize", _summarize, summary, __doc__).add_argument
    one("--section", dest="section_id", metavar="ID", help="only this section's numbers")
    one("--token", dest="continuation_token", help="continue where an answer stopped")
    one(
        "--function",
        metavar="NAME",
        help="let this Lambda function do it, in as many invocations as it takes; needs the"
        " permission lambda:InvokeFunction",
    )


def _summarize(options: argparse.Namespace) -> int:
    given = {
        name: value
        for name in ("section_id", "continuation_token")
        if (value := getattr(options, name)) is not None
    }
    request = read_summary_request(given)
    answer: Answer = {}
    if options.function:
        for answer in sums(options.function, {"mode": "summarize", **given}):
            say(f"{counted(answer['sections'], 'section')} so far")
    else:
        answer = run_summarize(request, run_here("summarize"), _tell)
    print_json(answer)
    if not (answer["sections"] or answer["failures"]):
        say("no statement about a video is stored")
    if not answer["complete"]:
        say(f"to go on, run the same command with --token {answer['continuation_token']}")
    return OK if answer["success"] and answer["complete"] else FAILED


def _tell(rows: int, total: int) -> None:
    say(f"{rows:,} of {total:,} rows")
