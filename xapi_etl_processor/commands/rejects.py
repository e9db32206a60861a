"""List the lines that were rejected and still count: not those that a newer load of their object
accepted.

Examples:
  python -m xapi_etl_processor rejects --section 2001
  python -m xapi_etl_processor rejects --reason "not JSON" --export rejected.jsonl
  python -m xapi_etl_processor rejects --source s3://my-bundles/section/2001/ --reload

An export holds what learners sent: only you can read the file. Exit code 0: done; 1: an object
could not be loaded again; 2: the request or the configuration is wrong.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from xapi_etl_processor.audit.rejected import (
    Chosen,
    Rejected,
    by_reason,
    objects_with_rejected_lines,
    rejected_lines,
    whole_lines,
)
from xapi_etl_processor.base.errors import S3NotAllowed, naming
from xapi_etl_processor.base.telemetry import counted
from xapi_etl_processor.commands.options import add_command, run_here
from xapi_etl_processor.commands.output import FAILED, OK, open_private, print_json, say
from xapi_etl_processor.common import process
from xapi_etl_processor.run import Run, Wanted
from xapi_etl_processor.s3.access import check_object_allowed
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import unknown

SHOWN_LINES = 100
"""Rejected lines that the list shows; an export has all. Our limit."""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "list or export rejected lines, or load their objects again"
    rejects = add_command(commands, "rejects", _rejects, summary, __doc__)
    some = partial(rejects.add_argument, default="")
    some("--section", metavar="ID", help="of objects of one section")
    some("--reason", metavar="TEXT", help="with this text in their reason")
    some("--source", metavar="URI", help="of objects whose s3://bucket/key begins so")
    do = rejects.add_mutually_exclusive_group()
    do.add_argument(
        "--export", type=Path, metavar="FILE", help="write them as JSON Lines, as S3 has them now"
    )
    do.add_argument("--reload", action="store_true", help="load their objects again, after a fix")
    rejects.add_argument("--json", action="store_true", help="print JSON")


def _rejects(options: argparse.Namespace) -> int:
    chosen = Chosen(options.section, options.reason, options.source)
    run = run_here("bulk", Wanted(force=True))
    check_whole_results(run.connections.clickhouse)
    if options.export:
        return _export(rejected_lines(run.connections.clickhouse, chosen), options.export, run)
    if options.reload:
        return _reload(chosen, run, as_json=options.json)
    return _list(chosen, run, as_json=options.json)


def _list(chosen: Chosen, run: Run, *, as_json: bool) -> int:
    clickhouse = run.connections.clickhouse
    if warning := unknown(clickhouse, chosen.section):
        say(warning)
    reasons = by_reason(clickhouse, chosen)
    total = sum(lines for _, lines, _, _ in reasons)
    lines = list(islice(rejected_lines(clickhouse, chosen), SHOWN_LINES))
    if as_json:
        body = {"rejected_lines": total, "reasons": {name: lines for name, lines, _, _ in reasons}}
        print_json({**body, "lines": [_shown(line) for line in lines]})
    else:
        _print(lines, total)
    return OK


def _shown(line: Rejected) -> dict[str, Any]:
    record = line._asdict() | {"rejected_at": line.rejected_at.isoformat(timespec="seconds")}
    return {name: record[name] for name in ("source_file", "source_line", "reason", "rejected_at")}


def _print(lines: list[Rejected], total: int) -> None:
    from xapi_etl_processor.explain.show import visible

    if not lines:
        print("no rejected lines")
        return
    for one in lines:
        print(visible(f"{one.source_file} line {one.source_line}"))
        print(f"  {one.rejected_at:%Y-%m-%d %H:%M} UTC  {visible(one.reason)}")
    first = counted(len(lines), "is", "are")
    more = f", the first {first} shown: --export has all" if total > len(lines) else ""
    print(f"{counted(total, 'rejected line')}{more}")


def _export(lines: Iterator[Rejected], path: Path, run: Run) -> int:
    count = cut = 0
    try:
        with open_private(path) as file:
            for record in whole_lines(lines, run):
                file.write(json.dumps(record) + "\n")
                count += 1
                cut += not record["whole"]
    except OSError as error:
        say(f"cannot write {path}: {error.strerror or error}")
        return FAILED
    print(path)
    say(
        f"{counted(count, 'line')} exported"
        + (f", {cut:,} of them not whole: see `why`" if cut else "")
    )
    return OK


def _reload(chosen: Chosen, run: Run, *, as_json: bool) -> int:
    clickhouse = run.connections.clickhouse
    before = sum(lines for _, lines, _, _ in by_reason(clickhouse, chosen))
    objects = list(objects_with_rejected_lines(clickhouse, chosen))
    allowed = []
    failures: dict[str, str] = {}
    for obj in objects:
        try:
            check_object_allowed(run.settings, obj)
            allowed.append(obj)
        except S3NotAllowed as error:
            failures[obj.uri] = str(error)
    with closing(process(allowed, run)) as outcomes:
        failures.update((o.obj.uri, o.error) for o in outcomes if o.failed)
    after = sum(lines for _, lines, _, _ in by_reason(clickhouse, chosen))
    body = {
        "success": not failures,
        "objects": len(objects),
        "rejected_before": before,
        "rejected_now": after,
        "failures": [{"source_file": uri, "error": why} for uri, why in failures.items()],
    }
    if as_json:
        print_json(body)
    else:
        were = counted(before, "line was", "lines were")
        print(
            f"{len(objects) - len(failures):,} of {counted(len(objects), 'object')} loaded again:"
            f" {were} rejected, {counted(after, 'is', 'are')} now"
        )
        for uri, why in failures.items():
            say(naming(uri, why))
    return FAILED if failures else OK
