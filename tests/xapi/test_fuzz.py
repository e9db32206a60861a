"""Nearly valid input of every kind: 30 of each, always the same; `make fuzz` tries thousands."""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.faults.fuzz_targets import gzip_stream, lines, payload
from tests.support.rows import (
    ADL,
    FOREIGN_SESSION,
    MINIMAL,
    encoded,
    full,
    minimal,
    paths_of,
    with_more,
    with_values,
)
from tests.support.samples import notification, sqs
from xapi_etl_processor.xapi.columns import SENT

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""How many are tried of each kind, at random; 0 in the usual tests."""

_many = settings(
    derandomize=not EXAMPLES,
    deadline=None,
    max_examples=EXAMPLES or 30,
    suppress_health_check=[HealthCheck.too_slow],
)

FULL = encoded(full())
PLAIN_GZIP = gzip.compress(FULL + b"\n" + MINIMAL, mtime=0)
EMPTY_GZIP = gzip.compress(b"", mtime=0)
BOMB = gzip.compress(b"\n" * 400_000, 9, mtime=0)

VOIDING = encoded(
    minimal(
        verb={"id": ADL + "voided"}, object={"objectType": "StatementRef", "id": "x"}, timestamp="t"
    )
)

# JSON that decoders disagree about, or that some reject.
FRAGMENTS = [
    *(b"NaN", b"1e999", b"-1e999", b"01", b".5", b"1" * 5000, b"1e19", b"2001.0", b"-1"),
    *(b"18446744073709551616", b"18446744073709551615", b"4294967296"),
    *(b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\udc00\\ud800"', b'"\xed\xa0\x80"'),
    *(b'"\\u0000"', b'"\x00"', b'"\xff"', b'"\\x"', b'""', b'" "', b"'a'", b"\xef\xbb\xbf"),
    *(b"[" * 3000, b"[" * 600 + b"]" * 600, b'{"a":' * 3000, b"[]", b"{}", b"null", b"true"),
    *(b'"2299-12-31T23:59:59.9999999Z"', b'"0001-01-01T00:00:00+23:59"', b'"20240101T00"'),
    *(b'"9999-12-31T23:59:59-23:59"', b'"2016-12-31T23:59:60Z"', b'"1900-01-01T00:00:00+00:01"'),
    *(b'"0[.]1e400"', b'"-1e308[.]0[,]0[.]1e308"', b'"nan[.]inf[,]1[.]"', b'"1_0[.]2_0"'),
    *(b'{"en-US":5,"fr":""}', b'[{"id":5},5,{"definition":[]}]', b'{"id":"x"}', b'"a","actor":{}'),
]
PLACES = sorted({json.dumps(path[-1]).encode() for path in paths_of(full())}) + [b'"unknown"']
DOUBLE = b'"actor":5,"actor":{},"verb":{},"verb":{"id":"v"}'


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def _statements(draw: st.DrawFn) -> bytes:
    """A statement in which some values, keys or bytes are changed."""
    path = draw(st.sampled_from([*paths_of(full())]))
    changed = json.dumps(with_values(full(), (path, draw(_json)))).encode()
    line = draw(st.sampled_from([changed, FULL, MINIMAL, VOIDING, with_more(DOUBLE)]))
    for _ in range(draw(st.integers(0, 3))):
        place, fragment = draw(st.sampled_from(PLACES)), draw(st.sampled_from(FRAGMENTS))
        change = draw(st.integers(0, 3))
        if change == 0 and place in line:
            # The old value moves to another key, so that the text stays JSON.
            line = line.replace(place + b": ", place + b": " + fragment + b', "was": ', 1)
        elif change == 1:
            line = line.removesuffix(b"}") + b"," + place + b":" + fragment + b"}"
        elif change == 2:
            line = line.replace(b"{", b"{" + place + b":" + fragment + b",", 1)
        else:
            at = draw(st.integers(0, len(line)))
            line = line[:at] + draw(st.binary(max_size=3)) + line[at + draw(st.integers(0, 3)) :]
    return line


LINES = _statements() | st.sampled_from([b"", b" \t", b"[]", b"\xff", b"\xef\xbb\xbf", FULL])


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    ends = st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r", b"\x0b\n", b"\xe2\x80\xa8"])
    body = b"".join(line + draw(ends) for line in draw(st.lists(LINES, max_size=6)))
    body = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + body + draw(st.binary(max_size=2))
    return gzip.compress(body, 1, mtime=0) if draw(st.integers(0, 5)) == 0 else body


@pytest.mark.slow
@pytest.mark.fault(29, 50, 53, caught_by="converted, or absent; line counts must add up")
@pytest.mark.check("S22")
@_many
@given(_bodies())
@example(b"")
@example(b"\x1f\x8b")
@example(b"\n" * 300_000)
@example(b"\xef\xbb\xbf\xef\xbb\xbf" + FULL)
@example(with_more(DOUBLE))
@example(with_more(b'"id":' + b"1" * 5000))
@example(with_more(b'"x":"\\ud800","id":5') + b"\n" + FULL)
@example(FULL.replace(b"2024-01-01T13", b"0001-01-01T00"))
@example(FULL.replace(b"2024-01-01T13:00:00.123456+01:00", b"2299-12-31T23:59:59.999999-00:01"))
@example(with_more(b'"id":[],"x":' + b"[" * 3000))
@example(with_more(b'"x":' + b"[" * 900 + b"]" * 900 + b"," + FOREIGN_SESSION))
@example(with_more(b'"id":' + b"1" * 5000 + b',"registration":"\\ud800"'))
@example(BOMB)
@example(BOMB[:-1])
def test_any_body_becomes_rows_that_can_be_stored(body: bytes) -> None:
    lines(body)


@pytest.mark.fault(29, 30, caught_by="converted, or absent")
@pytest.mark.parametrize("path", sorted({path for column in SENT for path in column.paths}))
def test_an_odd_value_in_any_field_can_be_stored_or_is_absent(path: tuple[str, ...]) -> None:
    statement = encoded(with_values(minimal(), (path, "here")))
    lines(b"\n".join([FULL, *(statement.replace(b'"here"', odd) for odd in FRAGMENTS)]))


_members = st.builds(
    lambda content, level: gzip.compress(content, level, mtime=0),
    st.binary(max_size=30) | st.sampled_from([FULL, b"\n" * 150_000]),
    st.integers(0, 9),
)


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """One to three members, with up to three changes."""
    stream = b"".join(draw(st.lists(_members, min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(stream)))
        some = draw(
            st.sampled_from([b"\0", b"\0" * 9, b"\x1f\x8b", EMPTY_GZIP]) | st.binary(max_size=4)
        )
        left_out = draw(st.integers(0, 4) | st.just(len(stream)))
        stream = stream[:at] + some + stream[at + left_out :]
    return stream


@pytest.mark.slow
@pytest.mark.fault(55, caught_by="gzip trailer")
@pytest.mark.check("S22")
@_many
@given(_streams() | st.binary(max_size=120))
@example(EMPTY_GZIP * 50)
@example(PLAIN_GZIP + b"\0" * 1000)
@example(PLAIN_GZIP + b"\0\0" + PLAIN_GZIP)
@example(PLAIN_GZIP + b"\x1f")
@example(PLAIN_GZIP[:-8] + b"\0" * 8)
@example(PLAIN_GZIP[:3] + b"\x02" + PLAIN_GZIP[4:])
@example(PLAIN_GZIP[:3] + b"\x04" + PLAIN_GZIP[4:10] + b"\xff\xff" + PLAIN_GZIP[10:])
@example(b"\x1f\x8b\x07" + PLAIN_GZIP[3:])
@example(BOMB + BOMB[:-4])
def test_any_gzip_stream_is_read_as_the_standard_library_reads_it_or_fails(stream: bytes) -> None:
    gzip_stream(stream)


def _token(text: str) -> bytes:
    token = base64.urlsafe_b64encode(text.encode()).decode()
    return json.dumps({"continuation_token": token}).encode()


_KNOWN = {
    "bulk": {
        "mode": "bulk",
        "bucket": "b",
        "s3_prefix": "section",
        "section_id": 7,
        "start_date": "2024-01-01",
        "end_date": "2024-01-31",
        "dry_run": True,
        "force_reprocess": False,
    },
    "health_check": {"health_check": True},
    "token": {"continuation_token": "eyJzZWN0aW9uX2lkIjogNywgImFmdGVyIjogInNlY3Rpb24vNy9rIn0="},
    "direct": {"bucket": "b", "key": "section/7/video/2024-01-01T12-00-00Z_1.jsonl"},
    "sqs": sqs(a=notification("b", "k.jsonl"), b={"bucket": "b", "key": "k"}, c="[" * 9000),
}
_SHAPES = [
    *(p.read_text() for p in sorted((Path(__file__).parents[1] / "events").glob("*.json"))),
    *map(json.dumps, _KNOWN.values()),
]
"""A payload of every kind, as JSON."""

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**63, 2**64, 2**70, 10**400, 0.5, 1e308),
    *(float("nan"), float("inf"), "", " ", "7", "٣", "-0", "0" * 30, "\x00", "\ud800", "é+%2B%ff"),
    *("%ED%A0%80", "\ud83d\ude00", "null", "[]", "{}", '{"Records":[]}', '"\\ud800"', "NaN"),
    *("[" * 3000, "{" * 9, "a" * 2000, "1" * 5000, "\ufeff{}", "aws:sqs", "aws.s3", "Notification"),
    *("s3:TestEvent", "ObjectCreated:Put", "Object Created", "bulk", "2024-02-30", "9999-12-31"),
    *("section/7/", "/section", "section/99999999999999999999/"),
    *("eyJhZnRlciI6IDF9", "W10=", "bnVsbA"),
    *("9999-99-99T00-00-00Z.jsonl", "2299-12-31T23-59-59,999999999Z_", "0000-00-00T00:00:00Z"),
    *([], {}, [None], [[]], {"Records": []}, {"": ""}, {"bucket": "b", "key": "k"}),
)

_ENVELOPES: list[Callable[[Any], Any]] = [
    lambda found: found,
    lambda found: sqs(a=found, b=json.dumps(found)),
    lambda found: {"Type": "Notification", "Message": json.dumps(found)},
    lambda found: sns(json.dumps(found)),
    lambda found: {"Records": [found, found]},
    lambda found: {"detail": found, "source": "aws.s3", "detail-type": "Object Created"},
    lambda found: [found],
]


def sns(message: str) -> Any:
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": message}}]}


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in a JSON value, with each of its keys."""
    if isinstance(node, dict | list):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, key
            yield from _places(node[key])


@st.composite
def _payloads(draw: st.DrawFn) -> bytes:
    """The JSON of a known payload with some values replaced or removed, maybe in an envelope."""
    found = json.loads(draw(st.sampled_from(_SHAPES)))
    for _ in range(draw(st.integers(0, 3))):
        if places := list(_places(found)):
            node, key = places[draw(st.integers(0, len(places) - 1))]
            if draw(st.integers(0, 3)):
                node[key] = deepcopy(draw(st.sampled_from(ODD)))
            else:
                del node[key]
    return json.dumps(draw(st.sampled_from(_ENVELOPES))(found)).encode()


@pytest.mark.slow
@pytest.mark.fault(7, caught_by="payload parsing")
@pytest.mark.check("S14", "S22")
@_many
@given(_payloads())
@example(b"null")
@example(b'"\\ud800"')
@example(b'{"Records":[{"messageId":"\\ud800","eventSource":"aws:sqs","body":"{}"}]}')
@example(b'{"Records":[{"eventSource":"aws:sqs"},{"eventSource":"aws:sqs","body":null}]}')
@example(b'{"Records":[{"s3":{"bucket":{"name":"b"},"object":{"key":"%ED%A0%80","size":1e999}}}]}')
@example(b'{"bucket":"b","key":"k\\udfff"}')
@example(b'{"section_id":1e999}')
@example(b'{"section_id":' + b"9" * 4000 + b"}")
@example(b'{"section_id":' + b"[" * 900 + b"]" * 900 + b"}")
@example(b'{"start_date":"0000-00-00","end_date":"9999-12-31"}')
@example(b'{"continuation_token":["a"]}')
@example(_token("[]"))
@example(_token('{"after":"\\ud800"}'))
@example(_token('{"after":"","section_id":[],"dry_run":"true"}'))
@example(_token("[" * 9000))
def test_any_payload_is_understood_or_refused_with_a_reason(data: bytes) -> None:
    payload(data)
