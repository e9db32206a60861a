"""The command line, for people: what its commands share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from xapi_etl_processor import __version__
from xapi_etl_processor.base.errors import BadRequest, ConfigurationError, XapiEtlError
from xapi_etl_processor.base.telemetry import logger, set_log_level
from xapi_etl_processor.commands import (
    bulk,
    drop_months,
    event,
    explain,
    find,
    health,
    migrate,
    privacy,
    rejects,
    report,
    status,
    summarize,
    verify,
)
from xapi_etl_processor.commands.output import FAILED, USAGE, say

_DESCRIPTION = """\
Load xAPI video statements from S3 into ClickHouse, as the Lambda function does.

Settings come from the environment, as in Lambda: CLICKHOUSE_HOST, S3_XAPI_BUCKET_NAME and, where
the defaults do not fit, CLICKHOUSE_PORT, CLICKHOUSE_USERNAME, CLICKHOUSE_PASSWORD,
CLICKHOUSE_SECURE, CLICKHOUSE_DATABASE, LOG_LEVEL (default here: WARNING). AWS credentials are found
as the aws command finds them.
"""
_COMMAND = "xapi-etl"
"""The name under which pyproject.toml installs it."""

_EPILOG = """\
exit codes: 0 success; 1 something failed, and the answer says what; 2 the request or the
configuration is wrong. Answers go to standard output, as JSON (explain, find: as text; status,
verify and rejects: with --json); logs and progress go to standard error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # A shell asks what could be typed next.
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    set_log_level(os.environ, default="WARNING")
    logger.handlers[0].setStream(sys.stderr)  # type: ignore[attr-defined]  # a StreamHandler
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except XapiEtlError as error:
        say(str(error))
        return USAGE if isinstance(error, BadRequest | ConfigurationError) else FAILED
    except KeyboardInterrupt:
        say("stopped before it was finished: it is safe to run the same command again")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_COMMAND if Path(sys.argv[0]).stem == _COMMAND else "python -m xapi_etl_processor",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    # In the order of the help: each adds one command, or a few that belong together.
    for module in (
        *(migrate, event, bulk, explain),
        *(find, status, verify, rejects, report, summarize, privacy, drop_months, health),
    ):
        module.add_to(commands)
    return parser
