"""Write what was watched as a page that any browser opens, without a network. docs/watching.md says
what the numbers mean. Only ClickHouse is read.

Example: python -m xapi_etl_processor report --section 2001 -o report.html
"""

from __future__ import annotations

import argparse
import os
from datetime import date
from pathlib import Path
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands.options import add_command
from xapi_etl_processor.commands.output import FAILED, OK, say
from xapi_etl_processor.run import connections
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import unknown


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "write a page that shows what was watched"
    report = add_command(commands, "report", _report, summary, __doc__)
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


def _number_of_viewers(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of viewers: use 0 or more")
    return int(text)


def _report(options: argparse.Namespace) -> int:
    from xapi_etl_processor.report.write import Options, write_all, write_section

    clickhouse = connections(Settings.from_env(os.environ)).clickhouse
    chosen = Options(options.since, options.hide_below, options.learners)
    try:
        check_whole_results(clickhouse)
        if options.all:
            for path in write_all(clickhouse, options.output, chosen):
                print(path)
            return OK
        section = write_section(clickhouse, options.section, options.output, chosen)
        empty = not section.videos and (
            unknown(clickhouse, options.section) or "no video statement of it is stored"
        )
    except OSError as error:
        say(f"cannot write the report: {error}")
        return FAILED
    print(options.output)
    if empty:
        say(f"the report of section {options.section} is empty: {empty}")
    return OK
