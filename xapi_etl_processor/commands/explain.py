"""Show what loading makes of a bundle's lines: which are video statements, by which rule, what each
column holds and from where, and what no column uses. Without --line or --id, a summary of all.

It writes nothing and needs no ClickHouse. It shows what statements hold, names of people included,
and user ids as they were sent; it does not know which learners were forgotten.

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
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.commands.event import object_of
from xapi_etl_processor.commands.options import add_command
from xapi_etl_processor.commands.output import FAILED, OK, say
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import source_of, unpacked
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.identity import statement_id
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES, READ_BYTES, split_lines


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
        "--id", type=_id, metavar="STATEMENT_ID", help="only this statement, a UUID in any spelling"
    )


def _line_number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no line: lines count from 1")
    return int(text)


def _id(text: str) -> str:
    found = statement_id(text)
    if found is None:
        raise argparse.ArgumentTypeError("it is empty: use a statement's id")
    return found


def _explain(options: argparse.Namespace) -> int:
    from rich.console import Console

    from xapi_etl_processor.explain import show
    from xapi_etl_processor.explain.line import explain_line, has_id
    from xapi_etl_processor.explain.summary import summarize

    settings = Settings.from_env(os.environ, needs_clickhouse=False)
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 10_000  # Whoever reads a file or a pipe has no screen to fit.
    with _opened(options.source, settings) as (source, chunks):
        lines = enumerate(chain.from_iterable(split_lines(chunks, MAX_LINE_BYTES)), 1)
        if options.line is None and options.id is None:
            summary = summarize(explain_line(raw, n, source, MAX_LINE_BYTES) for n, raw in lines)
            command = f"python -m xapi_etl_processor explain {shlex.quote(options.source)}"
            show.show_summary(console, summary, command)
            return OK
        found = []
        last = 0
        for last, raw in lines:
            if last == options.line or (options.id is not None and has_id(raw, options.id)):
                found.append(explain_line(raw, last, source, MAX_LINE_BYTES))
                if options.line is not None:
                    break
    if not found:
        what = f"line {options.line}" if options.line else f"statement {options.id}"
        say(f"{source.file} has no {what}: it has {counted(last, 'line')}")
        return FAILED
    for one in found:
        show.show_line(console, one)
    return OK


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
