"""Options that say which objects a command is about, and how they are loaded."""

from __future__ import annotations

import argparse


def add_scope(parser: argparse.ArgumentParser) -> None:
    """Add the options that select objects of a bucket."""
    parser.add_argument(
        "--section",
        dest="section_id",
        metavar="ID",
        action="append",
        help="this section only; may be repeated",
    )
    parser.add_argument(
        "--category",
        dest="categories",
        metavar="FOLDER",
        action="append",
        help="only this folder below the sections', such as video; may be repeated",
    )
    parser.add_argument(
        "--start", dest="start_date", metavar="DAY", help="first UTC day, such as 2024-01-01"
    )
    parser.add_argument("--end", dest="end_date", metavar="DAY", help="last UTC day, included")
    parser.add_argument(
        "--prefix",
        dest="s3_prefix",
        metavar="FOLDER",
        help="what to list (default: S3_XAPI_PREFIX)",
    )
    parser.add_argument(
        "--bucket",
        dest="s3_bucket",
        help="one of S3_XAPI_OTHER_BUCKETS instead of S3_XAPI_BUCKET_NAME",
    )
    parser.add_argument(
        "--token",
        dest="continuation_token",
        help="continue where an answer of the function stopped",
    )


def add_flags(parser: argparse.ArgumentParser, dry_run: str) -> None:
    """Add the options that say how objects are loaded; `dry_run` is the help of --dry-run."""
    parser.add_argument("--dry-run", action="store_true", help=dry_run)
    parser.add_argument(
        "--force",
        dest="force_reprocess",
        action="store_true",
        help="also process objects that are in the ledger already",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="also remove the rows of an object's earlier versions that its current one does not"
        " hold; needs the privilege ALTER DELETE",
    )
