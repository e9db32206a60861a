"""Process named objects, as if they had just been uploaded, or files on this machine: their paths
say what keys say.

Examples:
  python -m xapi_etl_processor event s3://my-bucket/section/2001/video/2024-01-01T12-00-00Z_1.jsonl
  python -m xapi_etl_processor event section/2001/video/*.jsonl.gz --dry-run
"""

from __future__ import annotations

import argparse
from typing import Any

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.commands.options import add_command, add_flags, run_here
from xapi_etl_processor.commands.output import FAILED, OK, USAGE, print_json
from xapi_etl_processor.modes.event import run_event
from xapi_etl_processor.queues.payloads import Delivery, Message
from xapi_etl_processor.run import Wanted
from xapi_etl_processor.s3 import local_files
from xapi_etl_processor.s3.objects import S3Object


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "process named objects or files, as if they had just been uploaded"
    event = add_command(commands, "event", _event, summary, __doc__)
    event.add_argument("uri", nargs="+", help="s3://bucket/key, not URL-encoded, or a file's path")
    add_flags(event, "read and count, but write nothing")


def _event(options: argparse.Namespace) -> int:
    wanted = Wanted(options.dry_run, options.force_reprocess, options.replace)
    run = run_here("event", wanted)
    objects = tuple(object_of(uri) for uri in options.uri)
    body, failed, bad_request = run_event(Delivery((Message("", objects),), direct=True), run)
    print_json(body)
    if bad_request:
        return USAGE
    return FAILED if failed else OK


def object_of(uri: str) -> S3Object:
    """The object or file that a URI or a path names; raises BadRequest if it names none."""
    if not uri.startswith("s3://"):
        if "://" in uri.removeprefix("file://"):
            raise BadRequest(f"{uri!r} is not an object: use s3://bucket/key, or a file's path")
        return local_files.named(uri)
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket or not key or key.endswith("/"):
        raise BadRequest(f"{uri!r} is not an object: use s3://bucket/key, or bulk for a folder")
    return S3Object(bucket, key)
