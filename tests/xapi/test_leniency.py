"""What is forgiven, and what is rejected."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.rows import (
    FOREIGN_SESSION,
    MINIMAL,
    OLI,
    SOURCE,
    VERBS,
    VIDEO,
    VIDEO_TYPE,
    JsonObject,
    encoded,
    full,
    minimal,
    paths_of,
    row_of,
    rows_of,
    with_more,
    with_values,
)
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.parse import parse


def outcome(line: bytes) -> JsonObject | str:
    parsed = parse([line], 1, SOURCE)
    return rows_of(parsed)[0] if parsed.counts.video else repr(parsed.counts)


# --- Leniency ---


def _without(statement: JsonObject, path: tuple[str, ...]) -> JsonObject:
    node = statement
    for key in path[:-1]:
        node = node[key]
    del node[path[-1]]
    return statement


# Without its id, a statement gets another one, made of its line; that has its own test below.
_FIELDS = [path for path in paths_of(full()) if path != ("id",)]


@pytest.mark.fault(29, 30, caught_by="converted, or absent")
@pytest.mark.parametrize("path", _FIELDS, ids=".".join)
def test_a_wrong_shape_loses_only_that_field(path: tuple[str, ...]) -> None:
    node: Any = full()
    for key in path:
        node = node[key]
    wrong_shapes: list[Any] = [None, [1], [[]]]
    wrong_shapes += ["text", 5] if isinstance(node, dict) else [{"a": 1}]
    if path == ("object", "definition", "name"):
        wrong_shapes.remove("text")  # a plain text is a title
    expected = outcome(encoded(_without(full(), path)))
    for wrong in wrong_shapes:
        assert outcome(encoded(with_values(full(), (path, wrong)))) == expected, wrong


@pytest.mark.parametrize(
    ("path", "value", "column", "expected"),
    [
        (("result", "extensions", VIDEO + "time"), "1e2", "video_time", 100.0),
        (("result", "extensions", VIDEO + "time"), "NaN", "video_time", None),
        (("result", "extensions", VIDEO + "time"), "1_000", "video_time", None),
        (("result", "extensions", VIDEO + "time"), 10**400, "video_time", None),
        (("context", "extensions", OLI + "page_id"), 2**64, "page_id", None),
        (("context", "extensions", OLI + "page_attempt_number"), 2**32, "attempt_number", 0),
        (("context", "extensions", OLI + "page_attempt_number"), "3", "attempt_number", 3),
        (("actor", "account", "name"), 2**70, "user_id", str(2**70)),
        (("context", "registration"), 7, "registration", "7"),
        (("context", "extensions", OLI + "content_element_id"), 325, "content_element_id", "325"),
        (("context", "extensions", VIDEO + "full-screen"), "true", "full_screen", True),
        (("context", "extensions", VIDEO + "full-screen"), 0, "full_screen", False),
        (("context", "extensions", VIDEO + "full-screen"), "perhaps", "full_screen", None),
        (("verb", "id"), VERBS + "played/", "verb", "played"),
        # Blanks around the id are trimmed.
        (("verb", "id"), f" \t{VERBS}played\r\n", "verb", "played"),
        (("verb", "id"), f"{VERBS}played ", "verb_id", VERBS + "played"),
    ],
)
def test_a_value_of_another_type_is_converted_or_absent(
    path: tuple[str, ...], value: Any, column: str, expected: Any
) -> None:
    found = row_of(with_values(minimal(), (path, value)))[column]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.fault(29, 30, caught_by="converted, or absent")
def test_a_number_out_of_range_loses_only_its_field() -> None:
    for number in (b"1e999", b"1" + b"0" * 5000):
        actor = b'"actor":{"account":{"name":%b},"mbox":"m"}' % number
        line = MINIMAL.replace(b'"actor": {}', actor)
        assert b"account" in line
        assert outcome(line) == row_of(line) | {"user_id": "m"}


@pytest.mark.fault(52, 53, caught_by="the character is replaced")
@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        (rb"Cells \ud83d", "Cells \ufffd"),  # cut inside an emoji
        (rb"\uDE00 cells", "\ufffd cells"),
        (rb"\ude00\ud83d", "\ufffd\ufffd"),
        (rb"\ud83d\ud83d\ude00", "\ufffd😀"),
        (rb"\ud83d\ude00", "😀"),
        (rb"\ud83d\u0041", "\ufffdA"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),  # the first is a backslash and letters
    ],
)
@pytest.mark.parametrize(
    "beside",
    [b'"x":1', b'"id":{}', b'"id":1' + b"0" * 5000],
    ids=["nothing", "a wrong shape", "a very long number"],
)
def test_a_lone_surrogate_costs_that_character(sent: bytes, stored: str, beside: bytes) -> None:
    """Fields of a wrong shape, and very long numbers, are read by other decoders."""
    title = b'"object":{"id":"v","definition":{"name":{"en":"%b"}}}' % sent
    line = with_more(title + b"," + beside)
    assert row_of(line) == row_of(with_more(b'"x":1')) | {
        "video_title": stored,
        "event_id": row_of(line)["event_id"],
    }


def test_an_odd_value_in_a_field_that_nobody_reads_does_no_harm() -> None:
    for odd in (b'"x \\ud800":"\\udc00"', b'"x":1e999', b'"x":1' + b"0" * 5000):
        assert row_of(with_more(odd + b"," + FOREIGN_SESSION))["session_id"] == "s", odd


@pytest.mark.fault(53, caught_by="nesting limit")
@pytest.mark.parametrize("pair", [b"[]", b'{"a":}'])
def test_a_line_is_read_if_it_is_nested_128_deep_and_rejected_if_129(pair: bytes) -> None:
    """The statement itself is one level. The session is looked for in the whole line."""
    opened, closed = pair[:-1], pair[-1:]

    def nested(depth: int) -> bytes:
        inner = opened * (depth - 1) + b"1" + closed * (depth - 1)
        return with_more(b'"x":' + inner + b"," + FOREIGN_SESSION)

    assert row_of(nested(128))["session_id"] == "s"
    in_text = b'"note":"%b",' % (b"[{" * 1000)
    assert row_of(with_more(in_text + FOREIGN_SESSION))["session_id"] == "s"
    (rejected,) = parse([nested(129)], 1, SOURCE).rejected
    assert rejected.reason == "nested more than 128 deep"


# --- Rejected ---


@pytest.mark.fault(52, 53, caught_by="strict decoder; one reason per fault")
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"SECRET", "not JSON"),
        (MINIMAL + b" SECRET", "not JSON"),
        (with_more(b'"SECRET":NaN'), "not JSON"),
        (with_more(b'"id":"\\ud800" SECRET'), "not JSON"),
        (b"\xef\xbb\xbf" + MINIMAL, "not JSON"),
        (b"\xc2\xa0SECRET", "not JSON"),
        (with_more(b'"unread":"SECRET\xff"'), "not UTF-8"),
        (with_more(b'"id":"SECRET\xed\xa0\x80"'), "not UTF-8"),
        (with_more(b'"unread":' + b"[" * 100_000 + b"]" * 100_000), "nested more than 128 deep"),
        (b'{"actor":' * 100_000 + b"1" + b"}" * 100_000, "nested more than 128 deep"),
        (b'["SECRET"]', "not a JSON object"),
        (b"[" + MINIMAL + b"," + MINIMAL + b"]", "an array of statements: write each on a line"),
        (b'{"more":"SECRET","statements":[]}', '{"statements": [...]}: write each on a line'),
        (b'"SECRET"', "not a JSON object"),
        (b'{"SECRET":1}', "actor"),
        (encoded({"actor": "SECRET", "verb": {"id": "v"}, "object": {}}), "actor"),
        (encoded({"actor": {}, "object": {"id": "SECRET"}}), "verb"),
        (encoded({"actor": {}, "verb": None, "object": {"id": "SECRET"}}), "verb"),
        (encoded({"actor": {}, "verb": {"display": "SECRET"}, "object": {}}), "verb.id"),
        (encoded({"actor": {}, "verb": {"id": ["SECRET"]}, "object": {}}), "verb.id"),
        (encoded({"actor": {"name": "SECRET"}, "verb": {"id": "v"}}), "object"),
        (encoded({"actor": {}, "verb": {"id": "v"}, "object": ["SECRET"]}), "object"),
        (b'"SECRET' + b"x" * MAX_LINE_BYTES, "longer than 16777216 bytes"),
        # All videos without an id would be one.
        (encoded(minimal(object={"definition": {"type": VIDEO_TYPE}})), "no usable object.id"),
        (encoded(minimal(object={"id": ""})), "statement has no usable object.id"),
        (encoded(minimal(object={"id": {}})), "no usable object.id"),
        (encoded(minimal(verb={"id": ""})), "statement has no usable verb.id"),
        (encoded(minimal(verb={"id": " \t\r\n"})), "statement has no usable verb.id"),
        # As event buses write it.
        (encoded({"event_id": "e", "event": minimal()}), '{"event": {...}}: write the statement'),
        (encoded({"statement": minimal()}), '{"statement": {...}}: write the statement itself on'),
    ],
)
def test_a_line_that_is_not_a_statement_is_rejected_with_a_reason_that_reveals_nothing(
    line: bytes, reason: str
) -> None:
    parsed = parse([b"", line + b"\r"], 7, SOURCE)
    ((number, found, kept),) = parsed.rejected
    assert (number, kept) == (8, line)
    assert reason in found
    assert "SECRET" not in found
    assert len(found) < 100
    assert rows_of(parsed) == []
