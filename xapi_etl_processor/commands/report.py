"""Write what was watched as a page that any browser opens, without a network. docs/watching.md says
what the numbers mean. Only ClickHouse is read.

A roster is a text file of user ids, one a line; a name may follow behind a comma. --progress writes
a table for a spreadsheet that only you can read: a line for each learner, a column for each video.

Examples:
  python -m xapi_etl_processor report --section 2001 -o report.html
  python -m xapi_etl_processor report --section 2001 --roster class.csv -o names.html
"""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, open_private, say
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import unknown


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "write a page that shows what was watched"
    report = add_command(commands, "report", _report, summary, __doc__)
    of = report.add_mutually_exclusive_group(required=True)
    of.add_argument("--section", metavar="ID", help="one section")
    of.add_argument("--all", action="store_true", help="each section, and an index of them")
    add = report.add_argument
    add("--since", type=_day, metavar="DAY", help="first day, such as 2024-01-01")
    add("--until", type=_day, metavar="DAY", help="last day, included")
    add(
        "--time-zone",
        type=_time_zone,
        default="UTC",
        metavar="ZONE",
        help="where days begin, such as America/New_York (default: UTC)",
    )
    add("--title", default="", metavar="TEXT", help="the page's title, such as the course's name")
    add(
        "-o", "--output", type=Path, required=True, help="the file to write; with --all, the folder"
    )
    add(
        "--hide-below",
        type=_number_of_viewers,
        default=0,
        metavar="N",
        help="hide the numbers of groups of fewer than N viewers",
    )
    people = report.add_argument_group("people", "personal data, so not with --hide-below")
    people.add_argument("--learners", action="store_true", help="name who has not watched a video")
    people.add_argument(
        "--roster",
        type=Path,
        metavar="FILE",
        help="the same, with the names in this file and who in it never came",
    )
    people.add_argument(
        "--progress",
        type=Path,
        metavar="FILE.csv",
        help="write what each learner opened, played and finished",
    )


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no day: use one such as 2024-01-31"
        ) from error


def _number_of_viewers(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of viewers: use 0 or more")
    return int(text)


def _time_zone(text: str) -> str:
    if text in available_timezones():
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no time zone: use a name such as Europe/Berlin")


def _check(options: argparse.Namespace) -> None:
    """Raise BadRequest for what cannot be, before ClickHouse works for it."""
    of_one = [name for name in ("title", "roster", "progress") if getattr(options, name)]
    if options.all and of_one:
        raise BadRequest(f"--{of_one[0]} is for one section: use --section instead of --all")
    if options.hide_below and (options.learners or options.roster or options.progress):
        raise BadRequest(
            "--hide-below hides people, and --learners, --roster, --progress name them"
        )
    if options.since and options.until and options.since > options.until:
        raise BadRequest(f"--since {options.since} is after --until {options.until}")
    if options.progress and options.progress.absolute() == options.output.absolute():
        raise BadRequest("--output and --progress name the same file: write to two")
    for path in filter(None, (options.output, options.progress)):
        if not path.absolute().parent.is_dir():
            raise BadRequest(f"there is no folder {path.parent}: make it first, or write elsewhere")
    if options.section is not None and options.output.is_dir():
        raise BadRequest(f"{options.output} is a folder: add the name of a file to it")


def _report(options: argparse.Namespace) -> int:
    from xapi_etl_processor.report.figures import Days, read_section
    from xapi_etl_processor.report.learners import progress, read_roster
    from xapi_etl_processor.report.page import names
    from xapi_etl_processor.report.write import Options, write_all, write_section

    clickhouse = run_here("report").connections.clickhouse
    days = Days(options.since, options.until, options.time_zone)
    chosen = Options(options.hide_below, bool(options.learners or options.roster), options.title)
    try:
        _check(options)
        roster = read_roster(options.roster) if options.roster else None
        check_whole_results(clickhouse)
        if options.all:
            for path in write_all(clickhouse, options.output, chosen, days):
                print(path)
            return OK
        section = read_section(
            clickhouse,
            options.section,
            days,
            with_learners=bool(chosen.learners or options.progress),
            roster=roster,
        )
        if not section.videos and (why := unknown(clickhouse, options.section)):
            raise BadRequest(why)
        write_section(section, options.output, chosen)
        print(options.output)
        if options.progress:
            with open_private(options.progress) as file:
                file.write(progress(section.learners, names(section)))
            print(options.progress)
    except OSError as error:
        say(f"cannot read or write a file: {error}")
        return FAILED
    if not section.videos:
        what = f"section {options.section}" + " and these days" * (not days.are_all)
        say(f"the report is empty: no video statements of {what} are stored")
    elif roster and sum(not who.shares for who in section.learners) == len(roster):
        say("nobody on the roster opened a video: its ids may be those of another system")
    return OK
