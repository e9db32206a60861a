"""The command migrate: create the tables, or bring them up to date."""

from __future__ import annotations

import argparse
import os
from typing import Any

from clickhouse_driver import errors

from xapi_etl_processor.base.clickhouse_errors import misdirected
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands.output import FAILED, OK, print_json, say


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    migrate = commands.add_parser(
        "migrate",
        help="create the database and its tables, or bring them up to date",
        description="Create the database and its tables, or bring them up to date. Safe to repeat.",
        epilog="example: python -m xapi_etl_processor migrate",
    )
    migrate.set_defaults(command=_migrate)


def _migrate(_: argparse.Namespace) -> int:
    from clickhouse_migrations.exceptions import MigrationException

    from xapi_etl_processor.migrations.migrate import migrate

    settings = Settings.from_env(os.environ)
    where = f"{settings.clickhouse_database} on {settings.clickhouse_host}"
    try:
        applied = migrate(settings)
    except (errors.Error, MigrationException, EOFError, OSError) as error:
        reason = misdirected(settings.clickhouse_port, error) or _text(error)
        say(f"{where} not migrated: {reason}")
        return FAILED
    print_json(
        {
            "database": settings.clickhouse_database,
            "host": settings.clickhouse_host,
            "applied": applied,
        }
    )
    return OK


def _text(error: Exception) -> str:
    return str(error).partition("Stack trace")[0].strip()
