"""Create the database and its tables, or bring them up to date. Safe to repeat.

Example: python -m xapi_etl_processor migrate
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from clickhouse_driver import errors

from xapi_etl_processor.base.clickhouse_errors import misdirected
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands.options import add_command
from xapi_etl_processor.commands.output import FAILED, OK, print_json, say


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "create the database and its tables, or bring them up to date"
    add_command(commands, "migrate", _migrate, summary, __doc__)


def _migrate(_: argparse.Namespace) -> int:
    from clickhouse_migrations.exceptions import MigrationException

    from xapi_etl_processor.migrations.migrate import migrate

    settings = Settings.from_env(os.environ)
    database, host = settings.clickhouse_database, settings.clickhouse_host
    try:
        applied = migrate(settings)
    except (errors.Error, MigrationException, EOFError, OSError) as error:
        text = str(error).partition("Stack trace")[0].strip()
        reason = misdirected(settings.clickhouse_port, error) or text
        say(f"{database} on {host} not migrated: {reason}")
        return FAILED
    print_json({"database": database, "host": host, "applied": applied})
    return OK
