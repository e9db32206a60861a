"""Three functions that take any bytes and assert what must always hold.

Hypothesis calls them (tests/xapi/test_fuzz.py). They use no service.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from math import isfinite
from typing import Any

from clickhouse_driver import Client
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.columns.service import write_column

from tests.support.rows import ABSENT, SOURCE, TYPES
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest, UnknownPayload
from xapi_etl_processor.bulk.request import BulkRequest, flag, read_request
from xapi_etl_processor.lambda_function import mode_of
from xapi_etl_processor.queues.payloads import Delivery, parse_payload
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage.tables import REJECTED, VOIDED
from xapi_etl_processor.storage.tables import TYPES as TABLE_TYPES
from xapi_etl_processor.xapi.lines import CHUNK_BYTES, BrokenGzip, decompressed, split_lines
from xapi_etl_processor.xapi.parse import Counts, Parsed, RejectedLine, parse
from xapi_etl_processor.xapi.transpose import to_columns
from xapi_etl_processor.xapi.voiding import Voided

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b"
BLANK = b" \t\r\n"
SETTINGS = Settings("127.0.0.1", bucket="bucket")
FIRST_MILLISECOND, LAST_MILLISECOND = -2_208_988_800_000, 10_413_791_999_999

# Header flags that Python's reader ignores and zlib checks: the header's checksum, and three that
# RFC 1952 reserves.
_CHECKED_HEADER = re.compile(
    rb"\x1f\x8b\x08[" + b"".join(re.escape(bytes([b])) for b in range(256) if b & 0xE2) + b"]"
)

_Row = dict[str, Any]
_Read = tuple[Counts, list[RejectedLine], list[_Row]]


# --- lines: an object's body ---


def lines(data: bytes) -> None:
    """A body becomes rows and rejected lines that add up and can be stored, in any chunks."""
    found = _read(_in_pieces(data))
    assert repr(found) == repr(_read([data])), "other chunks give other rows"
    if found is None:
        assert data.startswith(GZIP)
        return
    counts, rejected, rows = found
    content = _standard_gunzip(data) if data.startswith(GZIP) else data
    assert content is not None, "the standard library cannot read it"
    expected = content.removeprefix(BOM).split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert counts.add_up
    assert counts.lines == len(expected)
    assert counts.video == len(rows)
    assert counts.rejected == len(rejected)
    assert counts.blank == sum(not line.strip(BLANK) for line in expected)
    for number, _, line in rejected:
        assert line == expected[number - 1].strip(BLANK)
    numbers = [row["source_line"] for row in rows]
    assert numbers == sorted(set(numbers))
    _check_rejections(expected, {line.number for line in rejected})


def _read(chunks: Iterable[bytes]) -> _Read | None:
    """What the pipeline reads from a body; None for broken gzip."""
    counts = Counts()
    rejected: list[RejectedLine] = []
    rows: list[_Row] = []
    try:
        for some in split_lines(decompressed(chunks)):
            parsed = parse(some, counts.lines + 1, SOURCE)
            counts.add(parsed.counts)
            rejected += parsed.rejected
            rows += _rows(parsed)
            _check_stored_voided(parsed.voided)
    except BrokenGzip:
        return None
    _check_stored_rejected(rejected)
    return counts, rejected, rows


def _rows(parsed: Parsed) -> list[_Row]:
    count = len(parsed.chunk.statements)
    assert count == parsed.counts.video
    columns = to_columns(parsed.chunk)
    for name, values in columns.items():
        kind = TYPES[name]
        assert len(values) == count, name
        assert [value for value in values if not fits(value, kind)] == [], name
        _write(name, kind, values)
    return [ABSENT | {name: columns[name][row] for name in columns} for row in range(count)]


def fits(value: Any, kind: str) -> bool:
    """Whether a ClickHouse column of this type can hold the value unchanged."""
    if kind.startswith("Nullable("):
        return value is None or fits(value, kind[9:-1])
    if "String" in kind:
        return type(value) is str and is_utf8(value)
    if kind.startswith("UInt"):
        return type(value) is int and 0 <= value < 2 ** int(kind[4:])
    if kind == "Float64":
        return type(value) is float and isfinite(value)
    if kind == "Bool":
        return type(value) is bool
    return type(value) is int and FIRST_MILLISECOND <= value <= LAST_MILLISECOND


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode the text, which it cannot for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Nowhere:
    def sendall(self, data: bytes) -> None:
        """Discard the data."""


@lru_cache(maxsize=1)
def _driver() -> tuple[Any, Any]:
    """The driver's context, as after connecting, and a buffer that discards what is written."""
    client = Client("127.0.0.1")
    context = client.connection.context
    context.settings, context.client_settings = {}, client.client_settings
    return context, BufferedSocketWriter(_Nowhere(), 1024**2)


def _write(name: str, kind: str, values: Sequence[Any]) -> None:
    """Write a column as an insert does; raises what the insert would raise."""
    context, buffer = _driver()
    write_column(context, name, kind, list(values), buffer)


def _check_stored_rejected(rejected: list[RejectedLine]) -> None:
    for name, values in (
        ("source_line", [line.number for line in rejected]),
        ("reason", [line.reason for line in rejected]),
        ("line", [line.line for line in rejected]),
    ):
        _write(name, TABLE_TYPES[REJECTED][name], values)


def _check_stored_voided(voided: list[Voided]) -> None:
    for name, values in (
        ("voided_id", [found.voided_id for found in voided]),
        ("voided_by", [found.event_id for found in voided]),
        ("voided_at", [found.timestamp_ms for found in voided]),
        ("source_line", [found.number for found in voided]),
    ):
        _write(name, TABLE_TYPES[VOIDED][name], values)


def _check_rejections(expected: list[bytes], rejected: set[int]) -> None:
    """Python's json accepts and rejects the same lines, where both decoders should agree."""
    for number, raw in enumerate(expected, 1):
        line = raw.strip(BLANK)
        # The decoders differ on deep nesting; only statements about videos need the object's id.
        if line and line.count(b"[") + line.count(b"{") < 200 and not _lacks_object_id(line):
            assert _is_statement(line) is (number not in rejected), line


def _is_statement(line: bytes) -> bool:
    try:
        found = json.loads(line.decode(), parse_int=float, parse_constant=_no_constant)
    except ValueError:
        return False
    if not isinstance(found, dict):
        return False
    verb = found.get("verb")
    return (
        isinstance(found.get("actor"), dict)
        and isinstance(found.get("object"), dict)
        and isinstance(verb, dict)
        and isinstance(verb.get("id"), str)
        and verb["id"].strip(" \t\r\n") != ""
    )


def _lacks_object_id(line: bytes) -> bool:
    try:
        named = json.loads(line)["object"]["id"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return True
    return not isinstance(named, str | int) or named == ""


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _in_pieces(data: bytes) -> list[bytes]:
    """The data in pieces whose sizes depend on its checksum."""
    chance = random.Random(zlib.crc32(data))
    # More than a few hundred pieces would only cost time.
    size = max(chance.choice((1, 2, 7, 60, 500)), len(data) // 300)
    pieces, at = [], 0
    while at < len(data):
        step = chance.randint(0, 2 * size)
        pieces.append(data[at : at + step])
        at += step
    return pieces


# --- gzip_stream: a gzip stream, whole or damaged ---


def gzip_stream(data: bytes) -> None:
    """A stream gives the bytes that the standard library reads, or BrokenGzip, in small chunks."""
    expected = _standard_gunzip(data) if data.startswith(GZIP) else data
    found = _gunzipped(_in_pieces(data))
    assert found == _gunzipped([data]), "other chunks give other bytes"
    if found is None and _CHECKED_HEADER.search(data):
        return
    assert found == expected


def _gunzipped(chunks: Iterable[bytes]) -> bytes | None:
    found = bytearray()
    broken = None
    try:
        for chunk in decompressed(chunks):
            assert len(chunk) <= CHUNK_BYTES
            found += chunk
    except BrokenGzip as error:
        broken = str(error)
    assert broken is None or "upload" in broken
    return bytes(found) if broken is None else None


def _standard_gunzip(stream: bytes) -> bytes | None:
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(stream)).read()
    except (OSError, EOFError, zlib.error):
        return None


# --- payload: what Lambda passes to the handler ---


def payload(data: bytes) -> None:
    """A payload is understood or refused with a reason, and no message of a batch is lost."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return  # Lambda passes nothing but JSON.
    before = json.dumps(found)
    assert mode_of(found) in ("health_check", "bulk", "event")
    delivery = _check_delivery(found)
    if isinstance(found, Mapping):
        for name in ("dry_run", "force_reprocess"):
            _unless_refused(BadRequest, flag, found, name)
        _check_request(found, delivery.objects if delivery else [])
    assert json.dumps(found) == before, "reading changed the payload"


def _unless_refused(refusal: type[Exception], call: Callable[..., Any], *arguments: Any) -> Any:
    """The call's result; None if it raises this refusal, which must have a text in UTF-8."""
    try:
        return call(*arguments)
    except refusal as error:
        reason = str(error)
    assert reason
    assert is_utf8(reason)
    return None


def _check_delivery(found: Any) -> Delivery | None:
    delivery: Delivery | None = _unless_refused(UnknownPayload, parse_payload, found)
    if delivery is None:
        assert not _is_sqs_batch(found), "one bad message must not fail the others"
        return None
    assert delivery.from_sqs is _is_sqs_batch(found)
    records = found["Records"] if delivery.from_sqs else []
    ids = [str(record.get("messageId", "")) for record in records] or [""]
    assert [message.id for message in delivery.messages] == ids
    for message in delivery.messages:
        assert is_utf8(message.error)
    if delivery.from_sqs:
        for message, record in zip(delivery.messages, records, strict=True):
            assert parse_payload({"Records": [record]}).messages == (message,), (
                "a message is read differently in a batch"
            )
        # SQS makes the ids; only this target puts half of a surrogate pair into one.
        answer = {"batchItemFailures": [{"itemIdentifier": name} for name in filter(is_utf8, ids)]}
        assert json.loads(json.dumps(answer, ensure_ascii=False).encode()) == answer
    for obj in delivery.objects:
        _check_object(obj)
    return delivery


def _is_sqs_batch(found: Any) -> bool:
    records = found.get("Records") if isinstance(found, dict) else None
    if not isinstance(records, list) or not records:
        return False
    return all(isinstance(r, dict) and r.get("eventSource") == "aws:sqs" for r in records)


def _check_object(obj: S3Object) -> None:
    assert obj.bucket
    assert obj.key
    json.dumps({**asdict(obj), "uri": obj.uri}, ensure_ascii=False).encode()
    assert obj.is_bundle in (True, False)
    section = obj.section_id
    assert section is None or (section if isinstance(section, str) else 0 <= section < 2**64)
    moment = obj.key_timestamp_ms
    assert moment is None or FIRST_MILLISECOND <= moment <= LAST_MILLISECOND


def _check_request(found: Mapping[str, Any], objects: list[S3Object]) -> None:
    request: BulkRequest | None = _unless_refused(BadRequest, read_request, found, SETTINGS)
    if request is None:
        return
    assert request.bucket
    assert request.prefix == "" or request.prefix.endswith("/")
    assert is_utf8(request.bucket + request.prefix + request.after)
    assert (request.days is None) is not bool({"start_date", "end_date"} & request.scope.keys())
    for obj in objects:
        assert request.covers(obj) in (True, False)
    key = f"{request.prefix}é.jsonl"
    token = {"continuation_token": request.token_after(key)}
    assert read_request(token, SETTINGS) == replace(request, after=key)
