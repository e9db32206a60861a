"""A column's fallback gets the finished columns that it needs, wherever they stand in the table."""

from __future__ import annotations

import random

import pytest

from xapi_etl_processor.xapi.column import Column, Fallback
from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.transpose import in_order


def needs(name: str, *needed: str) -> Column:
    return Column(name, "String", "", fallback=Fallback(lambda *_, **__: [], "", needed))


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
