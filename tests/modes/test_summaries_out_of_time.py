"""A run whose time ends while ClickHouse works out a section."""

from __future__ import annotations

import time

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Invoke
from tests.modes.test_summarize import Insert, insert, seconds, watch_more
from xapi_etl_processor.modes import summarize

pytestmark = pytest.mark.usefixtures("own_stream")
__all__ = ["insert"]


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.usefixtures("watching")
def test_a_section_that_takes_longer_than_what_is_left_says_where_to_go_on(
    ask: Ask,
    insert: Insert,
    invoke: Invoke,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(summarize, "CHUNK_ROWS", 1)
    watch_more(insert, 1, 2)

    def slow(point: str, sql: str) -> None:
        if point == "query" and "INSERT INTO" in sql and "(2, '2')" in sql:
            time.sleep(12)

    clickhouse.hook = slow
    answer = invoke({"mode": "summarize"}, seconds_left=9)
    assert seconds(ask) == {"1": 20}
    assert (answer["success"], answer["failures"], answer["stop_reason"]) == (
        True,
        [],
        "out_of_time",
    )
