"""Drop the statements of all months before one, for good. It shows what there is, and asks.

The bundles in S3, and the ledger, stay: `bulk` loads them again only with --force, and `verify`
calls them dropped, not missing. If you use section_videos, run `summarize` afterwards.

Example: python -m xapi_etl_processor drop-months --before 2023-01
"""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import Any

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.base.telemetry import shown
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, agreed, print_json, say
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.months import drop, months_before


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "drop the statements of old months"
    one = add_command(commands, "drop-months", _drop_months, summary, __doc__).add_argument
    one("--before", required=True, metavar="MONTH", help="the first month that stays: 2023-01")
    one("--dry-run", action="store_true", help="only show the months, and what they hold")
    one("--yes", action="store_true", help="do not ask; needed in scripts")


def _drop_months(options: argparse.Namespace) -> int:
    before = options.before
    if not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", before):
        raise BadRequest(f"--before is {shown(before)}: a month such as 2023-01 is needed")
    if before > f"{datetime.now(UTC):%Y-%m}":
        raise BadRequest(f"--before {before} is in the future: all statements would be dropped")
    clickhouse = run_here("drop_months").connections.clickhouse
    check_whole_results(clickhouse)
    months = months_before(clickhouse, before)
    found = {"before": before, "months": [month._asdict() for month in months]}
    if not months:
        say(f"no month before {before} has statements")
    if not options.dry_run:
        question = "drop these months? This cannot be undone"
        if months and not (options.yes or agreed(found, question)):
            say("nothing was dropped")
            return FAILED
        drop(clickhouse, before, months)
    print_json({**found, "dry_run": options.dry_run})
    return OK
