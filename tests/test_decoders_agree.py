"""The fast decode and the forgiving one give the same row."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rows import OLI, SOURCE, VIDEO, full, minimal, rows_of, with_values
from xapi_etl_processor.xapi.parse import parse

_ID = "fd41c918-b88b-4b20-a0a5-a4c32391aaa0"
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.sampled_from(["1.5x", "50%", "PT3M15S", "720p", "2024-W05-3", "1e400", "BIO101", "0"])
)
_pairs = st.lists(st.lists(_scalars, max_size=3), max_size=3)
_activity: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {}, optional={"id": _scalars, "definition": st.just({})}
)
_member = st.fixed_dictionaries(
    {},
    optional={"mbox": _scalars, "account": st.fixed_dictionaries({}, optional={"name": _scalars})},
)
_values: dict[tuple[str, ...], st.SearchStrategy[Any]] = {
    ("timestamp",): _scalars,
    ("stored",): _scalars,
    ("object", "objectType"): _scalars | st.sampled_from(["Activity", "StatementRef"]),
    ("object", "definition", "name"): st.dictionaries(
        st.sampled_from(["en-US", "en-GB", "de"]), st.text(max_size=3)
    ),
    ("object", "definition", "type"): _scalars,
    ("context", "contextActivities", "parent"): st.lists(_activity, max_size=2),
    ("context", "extensions", OLI + "section_id"): _scalars,
    ("context", "extensions", VIDEO + "length"): _scalars,
    ("context", "extensions", VIDEO + "quality"): _scalars,
    ("context", "platform"): _scalars,
    ("actor", "mbox"): _scalars,
    ("actor", "member"): st.lists(_member, max_size=2),
    ("result", "score", "scaled"): _scalars,
    ("result", "extensions", VIDEO + "progress"): _scalars,
    ("result", "extensions", VIDEO + "speed"): _scalars,
    ("result", "extensions", VIDEO + "played-segments"): _scalars | _pairs,
}


@st.composite
def _statements(draw: st.DrawFn) -> Any:
    chosen = draw(st.lists(st.sampled_from([*_values]), max_size=4, unique=True))
    base = draw(st.sampled_from([full(), minimal(id=_ID)]))
    return with_values(base, *((path, draw(_values[path])) for path in chosen))


@pytest.mark.slow
@given(_statements())
def test_a_wrong_shape_beside_them_changes_no_value(statement: Any) -> None:
    # A registration at the top counts only where the context has none.
    forgiven = with_values(statement, (("registration",), ["no text"]))
    lines = [json.dumps(each).encode() for each in (statement, forgiven)]
    fast, slow = (parse([line], 1, SOURCE) for line in lines)
    assert fast.counts == slow.counts
    assert fast.counts.rejected == 0
    assert rows_of(fast) == rows_of(slow)


@pytest.mark.parametrize("statement", [full(), minimal(id=_ID)])
def test_a_lone_activity_or_member_counts_as_a_list_of_one(statement: Any) -> None:
    alone = {"id": "https://lms/c/7", "definition": {"type": "x:/course"}}
    member = {"mbox": "mailto:m@example.org"}
    for path, value in (
        (("context", "contextActivities", "parent"), alone),
        (("actor", "member"), member),
    ):
        rows = [
            rows_of(parse([json.dumps(with_values(statement, (path, sent))).encode()], 1, SOURCE))
            for sent in (value, [value])
        ]
        assert rows[0] == rows[1]
