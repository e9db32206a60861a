"""A profile that cuts results in silence: no summary and no list of months is made of a part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Invoke, forget_connections
from tests.modes.test_summarize import Insert, insert, seconds, watch_more
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.cli import main

pytestmark = pytest.mark.usefixtures("own_stream")
__all__ = ["insert"]


@pytest.fixture
def cut(clickhouse: ClickHouseServer) -> Iterator[ClickHouseServer]:
    yield clickhouse
    clickhouse.profile = {}


@pytest.mark.usefixtures("watching")
@pytest.mark.parametrize(
    "profile",
    [
        {"max_result_rows": "1", "result_overflow_mode": "break", "max_block_size": "1"},
        {"max_rows_to_group_by": "1", "group_by_overflow_mode": "any"},
        {"max_rows_to_read": "1", "read_overflow_mode": "break", "max_block_size": "1"},
        {"limit": "1"},
    ],
)
def test_no_summary_is_made_of_a_part(
    profile: dict[str, str], ask: Ask, insert: Insert, invoke: Invoke, cut: ClickHouseServer
) -> None:
    for _ in range(3):
        watch_more(insert, 1, 2, "spring")
    forget_connections()
    cut.profile = profile
    try:
        answer = invoke({"mode": "summarize"})
        said = (answer["success"], answer["complete"])
    except XapiEtlError:
        said = (False, False)
    cut.profile = {}
    whole = {"1": 60, "2": 60, "spring": 60}
    assert said != (True, True) or set(seconds(ask)) == set(whole)
    assert said[0] is False


def test_no_month_is_left_out(
    ask: Ask, insert: Insert, cut: ClickHouseServer, capsys: pytest.CaptureFixture[str]
) -> None:
    watch_more(insert, 1)
    ask("INSERT INTO video_events (timestamp, event_id) VALUES ('2023-01-01 00:00:00', 'a')")
    cut.profile = {"limit": "1"}
    forget_connections()
    assert main(["drop-months", "--before", "2025-01", "--dry-run"]) == 1
    assert "the user's profile has results cut in silence (limit" in capsys.readouterr().err
