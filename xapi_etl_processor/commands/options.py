"""What several commands share: options, and the run that is asked for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.bulk.request import PARAMETERS, BulkRequest, read_request
from xapi_etl_processor.run import Run, Wanted, connections
from xapi_etl_processor.xapi.identity import statement_id


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, text: str
) -> argparse.ArgumentParser:
    """Add a command. Of its text, what begins with an example is shown below the options."""
    description, example, rest = text.partition("\nExample")
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"{example}{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Add the options that select objects of a bucket."""
    many = partial(parser.add_argument, action="append")
    one = parser.add_argument
    many("--section", dest="section_id", metavar="ID", help="this section only; may be repeated")
    many(
        "--category",
        dest="categories",
        metavar="FOLDER",
        help="only this folder below the sections', such as video; may be repeated",
    )
    one("--start", dest="start_date", metavar="DAY", help="first UTC day, such as 2024-01-01")
    one("--end", dest="end_date", metavar="DAY", help="last UTC day, included")
    one("--prefix", dest="s3_prefix", metavar="FOLDER", help="default: S3_XAPI_PREFIX")
    one("--bucket", dest="s3_bucket", help="one of S3_XAPI_OTHER_BUCKETS")
    one("--token", dest="continuation_token", help="continue where an answer stopped")


def add_flags(parser: argparse.ArgumentParser, dry_run: str) -> None:
    """Add the options that say how objects are loaded; `dry_run` is the help of --dry-run."""
    flag = partial(parser.add_argument, action="store_true")
    flag("--dry-run", help=dry_run)
    flag("--force", dest="force_reprocess", help="also process objects that are in the ledger")
    flag(
        "--replace",
        help="also remove the rows of an object's earlier versions that its current one does not"
        " hold; needs the privilege ALTER DELETE",
    )


def an_id(text: str) -> str:
    """A statement's id in an option, as ids are compared."""
    found = statement_id(text)
    if found is None:
        raise argparse.ArgumentTypeError("it is empty: use a statement's id")
    return found


def run_here(mode: str, wanted: Wanted | None = None) -> Run:
    """A run of this process, with the settings of its environment."""
    settings = Settings.from_env(os.environ)
    return Run(settings, connections(settings), mode, wanted or Wanted())


def asked_for(options: argparse.Namespace) -> tuple[BulkRequest, Run]:
    """What the options of `add_scope`, and others of the same names, select; and a run for it."""
    settings = Settings.from_env(os.environ)
    request = read_request({name: getattr(options, name, None) for name in PARAMETERS}, settings)
    return request, Run(settings, connections(settings), "bulk", request.wanted)
