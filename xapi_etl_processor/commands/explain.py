"""Show what loading makes of a bundle's lines: which are video statements, by which rule, what each
column holds and from where, and what no column uses. Without --line or --id, a summary of all.

It writes nothing and needs no ClickHouse. It shows what statements hold, names of people included,
and user ids as they were sent. Only where CLICKHOUSE_HOST is set, rejected lines that name a
forgotten learner are not shown.

Examples:
  python -m xapi_etl_processor explain bundle.jsonl
  python -m xapi_etl_processor explain bundle.jsonl.gz --line 3
  python -m xapi_etl_processor explain s3://my-bucket/section/2001/video/1.jsonl --id 6690e6c9-...
  head -n 1 bundle.jsonl | python -m xapi_etl_processor explain - --line 1
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.commands.event import object_of
from xapi_etl_processor.commands.options import add_command, an_id
from xapi_etl_processor.commands.output import FAILED, OK, say
from xapi_etl_processor.explain import shape
from xapi_etl_processor.explain.line import Explanation, explain_line, has_id
from xapi_etl_processor.explain.summary import summarize
from xapi_etl_processor.run import connections
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import source_of, unpacked
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import BUNDLE_ENDINGS, S3Object
from xapi_etl_processor.storage.ledger import MAX_REJECTED_BYTES
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.identity import spelled
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES, READ_BYTES, split_lines
from xapi_etl_processor.xapi.parse import parse


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "show what loading makes of a bundle's lines, and why"
    explain = add_command(commands, "explain", _explain, summary, __doc__)
    explain.add_argument(
        "source", metavar="SOURCE", help="s3://bucket/key, a file, or - for standard input"
    )
    which = explain.add_mutually_exclusive_group()
    which.add_argument("--line", type=_line_number, metavar="N", help="only this line, from 1")
    which.add_argument(
        "--id",
        type=an_id,
        metavar="STATEMENT_ID",
        help="only this statement, a UUID in any spelling",
    )


def _line_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no line: lines count from 1")
    return int(text)


def _explain(options: argparse.Namespace) -> int:
    from rich.console import Console

    from xapi_etl_processor.explain import show

    settings = Settings.from_env(os.environ, needs_clickhouse=False)
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 10_000  # Whoever reads a file or a pipe has no screen to fit.
    with _opened(options.source, settings) as (source, chunks):
        head = b""
        while len(head) < shape.HEAD_BYTES and (chunk := next(chunks, b"")):
            head += chunk
        instead = shape.of_file(head[: shape.HEAD_BYTES])
        read = split_lines(chain((head,), chunks), MAX_LINE_BYTES)
        lines = enumerate(chain.from_iterable(read), 1)
        if options.line is None and options.id is None:
            summary = summarize(explain_line(raw, n, source, MAX_LINE_BYTES) for n, raw in lines)
            command = f"python -m xapi_etl_processor explain {shlex.quote(options.source)}"
            show.show_summary(console, summary, instead, command)
            if options.source != "-" and not S3Object("", source.file).is_bundle:
                named = " or ".join(BUNDLE_ENDINGS)
                print(f"Uploads and bulk pass over it: a bundle's name ends in {named}.")
            return OK
        found, missing = _chosen(lines, source, options)
    if missing:
        say(f"{source.file} {missing}")
        return FAILED
    for one in found:
        withheld = _withheld(one.line, settings) if one.line else ""
        show.show_line(console, one, instead, withheld)
    return OK


def _chosen(
    lines: Iterator[tuple[int, bytes]], source: Source, options: argparse.Namespace
) -> tuple[list[Explanation], str]:
    """The lines that were asked for or, if there is none, what to say instead. A rejected line is
    a statement's if its text has the id.
    """
    found = []
    last = rejected = 0
    for last, raw in lines:
        chosen = last == options.line
        if options.id is not None:
            chosen = has_id(raw, options.id)
            if not chosen and parse([raw], last, source, MAX_LINE_BYTES).rejected:
                rejected += 1
                chosen = bool(spelled(options.id).search(raw))
        if chosen:
            found.append(explain_line(raw, last, source, MAX_LINE_BYTES))
        if last == options.line:
            break
    if found:
        return found, ""
    what = f"line {options.line}" if options.line else f"statement {options.id}"
    missing = f"has no {what}: it has {counted(last, 'line')}"
    if rejected:
        missing += f"; of {rejected:,} rejected, only the text could be searched"
    return [], missing


def _withheld(line: bytes, settings: Settings) -> str:
    """Why a rejected line must not be shown, '' if it may. Without ClickHouse, it may."""
    if not settings.clickhouse_host:
        return ""
    learners = connections(settings).learners
    try:
        learners.refresh()
    except XapiEtlError as error:
        return f"whether it names a forgotten learner cannot be asked ({error})"
    # As loading judges what it may keep.
    is_named = learners.names_forgotten(line[: 2 * MAX_REJECTED_BYTES])
    return "it names a learner who was forgotten" if is_named else ""


@contextmanager
def _opened(name: str, settings: Settings) -> Iterator[tuple[Source, Iterator[bytes]]]:
    """What a source says of itself, and its unpacked bytes; reading them raises S3Error."""
    if name == "-":
        chunks = iter(lambda: sys.stdin.buffer.read(READ_BYTES), b"")
        yield Source("-", "", "", None, 0), unpacked(name, chunks)
        return
    client = Stores(settings.bucket_owner)
    named = read.describe(client, [object_of(name)])
    for obj, body in read.bodies(client, named):
        yield source_of(obj), unpacked(name, body)
