"""Check all that the function needs of S3 and ClickHouse; writes nothing.

Example: python -m xapi_etl_processor health
"""

from __future__ import annotations

import argparse
from typing import Any

from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, USAGE, print_json
from xapi_etl_processor.modes import health


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "check that the bucket can be read and the tables are current"
    add_command(commands, "health", _health, summary, __doc__)


def _health(_: argparse.Namespace) -> int:
    run = run_here("health_check")
    body = health.check(run.settings, run.connections)
    print_json(body)
    if not run.settings.bucket:
        return USAGE
    return OK if body["healthy"] else FAILED
