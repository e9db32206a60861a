"""Event ids can be computed in Python and in SQL, so that each side can check the other."""

from __future__ import annotations

import json
from uuid import UUID

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from local.clickhouse_server import ClickHouseServer
from tests.samples import video
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse
from xapi_etl_processor.xapi.transpose import to_columns

IN_SQL = r"""
WITH unhex('{line}') AS raw, trim(BOTH ' \t\r\n' FROM raw) AS line
SELECT if(
    JSONExtractString(line, 'id') != '',
    lower(JSONExtractString(line, 'id')),
    toString(UUIDNumToString(toFixedString(substring(SHA256(line), 1, 16), 16)))
)
"""

spaces = st.text(" \t\r", max_size=3).map(str.encode)
ids = st.none() | st.uuids().map(str) | st.uuids().map(lambda found: str(found).upper())
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(before=spaces, after=spaces, name=ids, words=texts)
def test_event_ids_are_equal_in_python_and_sql(
    clickhouse: ClickHouseServer, before: bytes, after: bytes, name: str | None, words: str
) -> None:
    statement = video(1) | {"id": name, "words": words}
    line = before + json.dumps(statement, ensure_ascii=False).encode() + after
    chunk = parse([line], 1, Source("s3://bucket/key", "etag", "", None, 0)).chunk
    (in_python,) = to_columns(chunk)["event_id"]
    answer = clickhouse.engine.query(IN_SQL.format(line=line.hex()), "TSV").bytes().decode()
    assert in_python == answer.strip()
    assert str(UUID(in_python)) == in_python
