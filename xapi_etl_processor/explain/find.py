"""Where a statement is: in the tables, or in objects of S3, and why it is nowhere else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from enum import StrEnum
from hashlib import sha256
from itertools import chain, islice
from typing import NamedTuple

from xapi_etl_processor.audit.rejected import Chosen, rejected_lines
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import S3Error, naming
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import PAGE_OBJECTS
from xapi_etl_processor.explain.line import Explanation, Fate, explain_line, has_id
from xapi_etl_processor.pipeline.contents import KEY_COLUMNS, SELECTED_KEY, Key, key_texts, stored
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import read
from xapi_etl_processor.s3.bundle import line_parts, source_of
from xapi_etl_processor.s3.objects import S3Object, object_at
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.storage.tables import EVENTS, STATEMENTS, VOIDED
from xapi_etl_processor.xapi.identity import in_every_spelling, spelled, statement_id
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.loose_json import any_json
from xapi_etl_processor.xapi.parse import WHITESPACE
from xapi_etl_processor.xapi.timestamps import instant


class Cause(StrEnum):
    """What is known of a statement in one place."""

    STORED = "stored"
    VOIDED = "voided"
    REJECTED = "rejected"
    FORGOTTEN = "forgotten"
    NO_VIDEO = "no video"
    NOT_LOADED = "not loaded"
    GONE = "row gone"


class Place(NamedTuple):
    """An object's URI and line, what became of the statement there in words that name nobody, and a
    command, if one loads it.
    """

    cause: Cause
    source_file: str
    line: int
    words: str
    command: str = ""


def in_tables(wanted: str, request: BulkRequest, clickhouse: ClickHouse) -> list[Place]:
    """What the tables know of the statement with this `event_id`, of objects that are asked for."""
    voidings, voids = _voidings(wanted, clickhouse)
    rows = _rows(wanted, request, clickhouse, voided=bool(voidings))
    return [*rows, *voidings, *voids, *_rejected(wanted, request, clickhouse)]


def _is_asked_for(request: BulkRequest, uri: str, modified_ms: int = 0) -> bool:
    """Whether the options ask for this object. Without options, all objects are meant, also files
    on a disk and those of other buckets.
    """
    obj = replace(object_at(uri), modified=instant(modified_ms) if modified_ms else None)
    return not request.scope or (
        obj.bucket == request.bucket and obj.key.startswith(request.prefix) and request.covers(obj)
    )


def _rows(
    wanted: str, request: BulkRequest, clickhouse: ClickHouse, *, voided: bool
) -> Iterator[Place]:
    """The rows, those that count first. Of several rows with one key, one counts."""
    table = f"{clickhouse.database}.{EVENTS}"
    source = "source_file, source_line, source_etag, row_version"
    rows = clickhouse.query(
        f"SELECT DISTINCT {SELECTED_KEY}, verb, {source} FROM {table}"
        " WHERE event_id = %(wanted)s ORDER BY timestamp, row_version",
        {"wanted": wanted},
    )
    if not rows:
        return
    keys = {Key(*row[:5]) for row in rows}
    counts = clickhouse.query(
        f"SELECT {SELECTED_KEY}, verb, {source} FROM {table} FINAL"
        f" WHERE ({', '.join(KEY_COLUMNS)}) IN %(keys)s",
        {"keys": key_texts(keys)},
    )
    view = f"the view {STATEMENTS}"
    shown = f"it is voided: {view} leaves it out" if voided else f"{view} shows it"
    for row in sorted(rows, key=lambda one: one not in counts):
        _, section, _, timestamp, _, verb, file, line, _, version = row
        if _is_asked_for(request, file, version):
            at = instant(timestamp).isoformat(" ", "milliseconds").removesuffix("+00:00")
            how = shown if row in counts else "a copy: another row of it counts"
            words = f"section {section or 'unknown'}, {at} UTC, {verb}; {how}"
            yield Place(Cause.STORED, file, line, words)


def _voidings(wanted: str, clickhouse: ClickHouse) -> tuple[list[Place], list[Place]]:
    """The statements that void it, and its own places if it voids others."""
    rows = clickhouse.query(
        "SELECT voided_id, voided_by, toUnixTimestamp64Milli(voided_at), source_file, source_line"
        f" FROM {clickhouse.database}.{VOIDED} FINAL"
        " WHERE voided_id = %(wanted)s OR voided_by = %(wanted)s ORDER BY voided_at, voided_by",
        {"wanted": wanted},
    )
    by, voids = [], []
    for voided_id, voided_by, at, file, line in rows:
        if voided_id == wanted:
            when = instant(at).isoformat(" ", "seconds").removesuffix("+00:00")
            by.append(Place(Cause.VOIDED, file, line, f"by {voided_by}, {when} UTC"))
        if voided_by == wanted:
            voids.append(Place(Cause.NO_VIDEO, file, line, f"it voids {voided_id}"))
    return by, voids


def _rejected(wanted: str, request: BulkRequest, clickhouse: ClickHouse) -> Iterator[Place]:
    part, may_be = in_every_spelling(wanted).decode(), _text_test(wanted)
    for one in rejected_lines(clickhouse, Chosen(line=part)):
        if may_be(one.kept) and _is_asked_for(request, one.source_file):
            words = f"{one.reason}; the line has this id in its text"
            yield Place(Cause.REJECTED, one.source_file, one.source_line, words)


def _text_test(wanted: str) -> Callable[[bytes], bool]:
    """Whether a rejected line may be the statement: its text has the id, and it is not JSON with
    another id of its own, which only mentions this one.
    """
    text = spelled(wanted)

    def may_be(line: bytes) -> bool:
        if not text.search(line):
            return False
        try:
            found = any_json(line)
        except (ValueError, RecursionError):
            return True
        own = statement_id(found.get("id")) if isinstance(found, dict) else None
        return own in (None, wanted)

    return may_be


def in_objects(
    wanted: str, objects: Iterable[S3Object], run: Run
) -> Iterator[tuple[S3Object, list[Place], str]]:
    """Read each object, in order, and look for the statement: the places in it or, if it cannot be
    read, why.
    """
    run.connections.learners.refresh()
    source = iter(objects)
    while page := list(islice(source, PAGE_OBJECTS)):
        with closing(read.bodies(run.connections.s3, page)) as bodies:
            for obj, body in bodies:
                try:
                    found = list(lines_with(wanted, obj, body))
                except S3Error as error:
                    yield obj, [], naming(obj.uri, error)
                else:
                    yield obj, _places(found, obj, run) if found else [], ""


def lines_with(wanted: str, obj: S3Object, body: Iterator[bytes]) -> Iterator[Explanation]:
    """The lines that are the statement, and rejected ones that have its id in their text; raises
    S3Error.
    """
    source, may_be_rejected = source_of(obj), _text_test(wanted)
    may_be = _quick_test(wanted)
    lines = chain.from_iterable(line_parts(obj, body, FOREVER))
    for number, raw in enumerate(lines, 1):
        if may_be(raw) and ((is_it := has_id(raw, wanted)) or may_be_rejected(raw)):
            one = explain_line(raw, number, source, MAX_LINE_BYTES)
            if is_it or one.fate is Fate.REJECTED:
                yield one


def _quick_test(wanted: str) -> Callable[[bytes], bool]:
    """Whether a line may be the statement: decoding each line would take longer."""
    part, digits = in_every_spelling(wanted), wanted.replace("-", "")
    # A statement without an id has one of its line.
    digest = bytes.fromhex(digits) if re.fullmatch("[0-9a-f]{32}", digits) else None

    def may_be(raw: bytes) -> bool:
        if part in raw.lower() or b"\\u00" in raw:
            return True
        return digest is not None and sha256(raw.strip(WHITESPACE)).digest()[:16] == digest

    return may_be


def _places(found: list[Explanation], obj: S3Object, run: Run) -> list[Place]:
    """What loading has made of these lines of an object."""
    clickhouse = run.connections.clickhouse
    is_loaded = bool(ledger.already_processed(clickhouse, [obj], FOREVER))
    event = f"python -m xapi_etl_processor event {shlex.quote(obj.uri)}"
    load = "" if is_loaded else event
    places = []
    for one in found:
        values = {name: cell.value for name, cell in one.cells.items()}
        if one.fate is Fate.REJECTED:
            place = (Cause.REJECTED, f"{one.rule}; the line has this id in its text", load)
        elif one.fate is Fate.OTHER:
            rule = f"it voids {one.voids}" if one.voids else one.rule
            place = (Cause.NO_VIDEO, rule, load)
        elif run.connections.learners.forgotten([(values["user_id"], values["home_page"])]):
            place = (Cause.FORGOTTEN, "its learner was forgotten: loading leaves it out", "")
        elif not is_loaded:
            place = (Cause.NOT_LOADED, "its object is not in the ledger", load)
        elif (key := Key(*(values[name] for name in KEY_COLUMNS))) in stored(
            [key], clickhouse, FOREVER
        ):
            place = (Cause.STORED, "as a row of another object, which has it too", "")
        else:
            gone = "its object is loaded, and its row was deleted, or dropped with its month"
            place = (Cause.GONE, gone, f"{event} --force")
        cause, words, command = place
        places.append(Place(cause, obj.uri, one.number, words, command))
    return places
