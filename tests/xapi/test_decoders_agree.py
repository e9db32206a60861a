"""The fast decode and the forgiving one give the same row, and so do shortcuts for many rows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.rows import OLI, SOURCE, VIDEO, full, minimal, rows_of, with_values
from xapi_etl_processor.xapi.column import Column
from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import converted

# On a busy machine, generating statements takes longer than Hypothesis likes.
patient = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
@patient
@given(_statements())
def test_a_wrong_shape_beside_them_changes_no_value(statement: Any) -> None:
    # A registration at the top counts only where the context has none.
    forgiven = with_values(statement, (("registration",), ["no text"]))
    lines = [json.dumps(each).encode() for each in (statement, forgiven)]
    fast, slow = (parse([line], 1, SOURCE) for line in lines)
    assert fast.counts == slow.counts
    assert fast.counts.rejected == 0
    assert rows_of(fast) == rows_of(slow)


_of_scalars = [
    column
    for column in (*SENT, *STEPS)
    if column.paths and column.name not in {"verb", "video_title", "course_id", "parent_id"}
]
_times = st.from_regex(
    r"(2024|1900|2299|1899|2300)-(0[1-9]|1[0-3])-(0[1-9]|[23][0-9])[Tt ]([01][0-9]|2[0-4])"
    r":[0-5][0-9]:([0-5][0-9]|60)([.,][0-9]{1,9})?([Zz]|[+-](0[0-9]|2[0-5]):?[0-6]0)?",
    fullmatch=True,
)
_texts = st.sampled_from(["", "0", "1.0", "true", "50%", "1.5x", "720p", "PT3M15S", "1:30", "a"])
_numbers = st.sampled_from([0, 1, 2, 50, -1, 2**64, 10**400, 0.0, 1.0, 0.5, 101.0, 1.7e12])


@pytest.mark.slow
@patient
@given(
    st.sampled_from(_of_scalars),
    st.lists(_times, min_size=1, max_size=3)
    | st.lists(_texts | _numbers | st.booleans() | st.none(), min_size=1, max_size=6),
)
def test_many_values_become_what_each_becomes(column: Column, values: list[Any]) -> None:
    found, gaps = converted(values, column)
    each = [None if value is None else column.kind.convert(value) for value in values]
    # An empty text may stay one where that stands for "absent".
    assert [repr(None if value == "" else value) for value in found] == list(map(repr, each))
    assert gaps == (None in found)
