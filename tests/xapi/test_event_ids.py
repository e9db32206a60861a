"""Ids of statements: one UUID however it is spelled, and the same in Python and in SQL."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from local.clickhouse_server import ClickHouseServer
from tests.support.rows import minimal, row_of
from tests.support.samples import video
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import to_columns

CANONICAL = "fd41c918-b88b-4b20-a0a5-a4c32391aaa0"
PAGE = Path(__file__).parents[2] / "docs" / "tables.md"


def in_sql() -> str:
    """The query of docs/tables.md, with the line of its example left open."""
    (query,) = (
        block.partition("```")[0]
        for block in PAGE.read_text(encoding="utf-8").split("```sql\n")
        if "AS event_id" in block.partition("```")[0]
    )
    query, found = re.subn(r"\(SELECT '.*' AS raw\);", "(SELECT unhex(%s) AS raw)", query)
    assert found == 1
    return query


@pytest.mark.parametrize(
    "spelling",
    [
        "{}",
        " {}\t",
        "{{{}}}",
        # As long as a canonical one, if it lacks one hyphen.
        "{{{}",
        "{}}}",
        "urn:uuid:{}",
        "URN:UUID:{{{}}}\r\n",
    ],
)
def test_a_uuid_in_any_spelling_is_one_id(spelling: str) -> None:
    bare, lacking_one = CANONICAL.replace("-", ""), CANONICAL[:23] + CANONICAL[24:]
    for digits in (CANONICAL, CANONICAL.upper(), bare, lacking_one):
        assert row_of(minimal(id=spelling.format(digits)))["event_id"] == CANONICAL


def test_another_id_is_kept_trimmed_and_in_lower_case_and_without_one_it_is_that_of_the_line() -> (
    None
):
    for sent, event_id in (
        ("Statement-7", "statement-7"),
        (" https://lrs.example/S/7 ", "https://lrs.example/s/7"),
        (CANONICAL + "0", CANONICAL + "0"),
        (CANONICAL[:-1] + "g", CANONICAL[:-1] + "g"),
        ("urn:uuid:7", "urn:uuid:7"),
        (7, "7"),
    ):
        assert row_of(minimal(id=sent))["event_id"] == event_id
    none: list[Any] = [None, "", " ", "\t\n", [], {"a": 1}]
    for absent in none:
        line = json.dumps(minimal(id=absent)).encode()
        digest = UUID(bytes=sha256(line).digest()[:16])
        assert row_of(b" " + line + b"\r")["event_id"] == str(digest), absent


_blanks = st.text(" \t\r\n", max_size=2)
_uuids = st.builds(
    lambda uuid, spelling, change, before, after: before + spelling.format(change(uuid)) + after,
    st.uuids(),
    st.sampled_from(["{}", "{{{}}}", "urn:uuid:{}", "URN:UUID:{{{}}}", "{{{}", "{} ."]),
    st.sampled_from([str, lambda uuid: str(uuid).upper(), lambda uuid: uuid.hex]),
    _blanks,
    _blanks,
)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.mark.slow
@hypothesis_settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    before=_blanks.map(str.encode),
    after=_blanks.map(str.encode),
    name=st.none() | _uuids | _texts,
    words=_texts,
)
@example(before=b"", after=b"", name="ÀÉ-İ-AZ", words="")
def test_event_ids_are_equal_in_python_and_sql(
    clickhouse: ClickHouseServer, before: bytes, after: bytes, name: str | None, words: str
) -> None:
    statement = video(1) | {"id": name, "words": words}
    line = before + json.dumps(statement, ensure_ascii=False).encode() + after
    chunk = parse([line], 1, Source("s3://bucket/key", "etag", "", None, 0)).chunk
    (in_python,) = to_columns(chunk)["event_id"]
    query = f"SELECT hex(event_id) FROM ({in_sql() % repr(line.hex())})"
    answer = clickhouse.engine.query(query, "TSV").bytes().decode()
    assert bytes.fromhex(answer.strip()).decode() == in_python
