"""Any bytes: every line is counted as exactly one thing, and every row fits its columns."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.faults.fuzz_targets import fits
from tests.support.rows import (
    ADL,
    FOREIGN_SESSION,
    MINIMAL,
    SOURCE,
    TYPES,
    encoded,
    full,
    minimal,
    paths_of,
    rows_of,
    with_more,
)
from xapi_etl_processor.xapi.parse import parse

_TELLING = ["1.0", "50%", "PT1.5S", "1:75", "1.5x", "1280x720", "[[0, 1]]", "[[", "2024-W54-1"]
_TELLING += ["9999-366", "2024-01-01T24:00:01Z", "1e999", "urn:uuid:", "StatementRef", "BIO101"]

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(_TELLING),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def _shaped(changes: list[tuple[tuple[str, ...], Any]]) -> bytes:
    statement = full()
    for path, value in changes:
        node: Any = statement
        for key in path[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[path[-1]] = value
    return json.dumps(statement).encode()


_changed = st.lists(
    st.tuples(st.sampled_from([*paths_of(full())]), _json), min_size=1, max_size=3
).map(_shaped)


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    line = draw(st.sampled_from([encoded(full()), MINIMAL]))
    begin = draw(st.integers(0, len(line)))
    return line[:begin] + draw(st.binary(max_size=4)) + line[begin + draw(st.integers(0, 4)) :]


def _voiding(voided_id: Any) -> bytes:
    reference = {"objectType": "StatementRef", "id": voided_id}
    return encoded(minimal(verb={"id": ADL + "voided"}, object=reference))


LINES = (
    st.binary(max_size=20)
    | st.text(" \t\r", max_size=3).map(str.encode)
    | _json.map(lambda value: json.dumps(value).encode())
    | _changed
    | _damaged()
    | st.just(encoded(minimal(verb={"id": ADL + "completed"})))
    | _json.map(_voiding)
)


@pytest.mark.slow
@pytest.mark.fault(53, caught_by="line counts that must add up")
@settings(max_examples=150)
@given(st.lists(LINES, max_size=8))
@example([with_more(b'"x":"\\ud800",' + FOREIGN_SESSION), encoded(full())])
def test_every_line_becomes_exactly_one_thing(lines: list[bytes]) -> None:
    parsed = parse(lines, 11, SOURCE)
    counts = parsed.counts
    assert counts.lines == len(lines)
    assert counts.lines == counts.video + counts.other + counts.blank + counts.rejected
    assert counts.blank == sum(not line.strip(b" \t\r\n") for line in lines)
    assert [(number, line) for number, _, line in parsed.rejected] == [
        (number, lines[number - 11].strip(b" \t\r\n")) for number, _, _ in parsed.rejected
    ]
    assert len(parsed.voided) <= counts.other
    rows = rows_of(parsed)
    assert len(rows) == counts.video
    for row in rows:
        assert [n for n, kind in TYPES.items() if not fits(row[n], kind)] == []
        # A row does not depend on the other lines of its chunk.
        number = row["source_line"]
        (alone,) = rows_of(parse([lines[number - 11]], number, SOURCE))
        assert row == alone
