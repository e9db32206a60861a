"""A column's fallback gets the finished columns that it needs, wherever they stand in the table."""

from __future__ import annotations

import random
from graphlib import CycleError

import pytest

from tests.support.rows import VIDEO, minimal, row_of
from xapi_etl_processor.xapi.column import Column, Fallback
from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.transpose import in_order

SEGMENTS = {VIDEO + "played-segments": "0[.]10[,]5[.]20"}


def needs(name: str, *needed: str) -> Column:
    return Column(name, "String", "", fallback=Fallback(lambda *_, **__: [], "", needed))


def test_the_play_time_is_computed_from_the_segments_wherever_they_stand() -> None:
    # 0 to 10 and 5 to 20 cover 20 seconds.
    for place in ("result", "context"):
        row = row_of(minimal(**{place: {"extensions": SEGMENTS}}))
        assert row["video_play_time"] == 20.0
    assert row_of(minimal())["video_play_time"] is None


@pytest.mark.parametrize("seed", range(20))
def test_a_column_comes_after_those_it_needs_in_any_order_of_the_table(seed: int) -> None:
    shuffled = [*STEPS, *SENT]
    random.Random(seed).shuffle(shuffled)
    names = [column.name for column in in_order(shuffled)]
    assert sorted(names) == sorted(column.name for column in (*STEPS, *SENT))
    assert names.index("video_played_segments") < names.index("video_play_time")
    assert names.index("stated_at") < names.index("timestamp_source")


def test_a_needed_column_that_is_missing_is_an_error() -> None:
    with pytest.raises(KeyError, match="b"):
        in_order([needs("a", "b")])


def test_columns_that_need_each_other_are_an_error() -> None:
    with pytest.raises(CycleError):
        in_order([needs("a", "b"), needs("b", "a")])
