"""Played segments: the notation that is stored, and the seconds that they cover."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.rows import PLACES, VIDEO, minimal, row_of, with_values


def stored(*sent: Any) -> tuple[str, float | None]:
    """The columns, if the places have these segments, beginning with the result."""
    pairs = [
        ((*place, "extensions", VIDEO + "played-segments"), value)
        for place, value in zip(PLACES, sent, strict=False)
    ]
    row = row_of(with_values(minimal(), *pairs))
    return row["video_played_segments"], row["video_play_time"]


@pytest.mark.parametrize(
    ("segments", "seconds"),
    [
        *(("0[.]12.5[,]40[.]61.25", 33.75), ("5[.]15[,]0[.]10", 15.0), ("0[.]10[,]12[.]", 10.0)),
        *(("0[.]4.103[,]9", 4.103), ("0[.]0.1[,]0.2[.]0.3", 0.2), ("0[.]10[,]9[.]4", 10.0)),
        *(("10[.]20[,]NaN[.]NaN[,]0[.]15", 20.0), ("7[.]7", 0.0), ("0[.]5", 5.0)),
        *(("12[.]", None), ("", None), ("nonsense", None)),
        ("-1e308[.]0[,]0[.]1e308", None),  # too large for a float
        # What only begins like an array.
        *((text, None) for text in ("[.]5", "[[0,1]", "[[", "[0[.]5]", "[" * 5000)),
    ],
)
def test_seconds_played_repeatedly_count_once(segments: str, seconds: float | None) -> None:
    assert stored(segments) == (segments, seconds)


@pytest.mark.parametrize(
    ("sent", "segments", "seconds"),
    [
        ([[0, 12.5], [40, 61.25]], "0[.]12.5[,]40[.]61.25", 33.75),
        ([[0, 10], [5, 15]], "0[.]10[,]5[.]15", 15.0),
        ([["0", " 12.5 "]], "0[.]12.5", 12.5),
        ([[0, 10], [12, None]], "0[.]10[,]12[.]", 10.0),
        ([[0, 10], [12]], "0[.]10[,]12[.]", 10.0),
        (["0[.]10", "12[.]20"], "0[.]10[,]12[.]20", 18.0),
        ([[0, 10], ["a", 5], [True, 5], {}, 7, [1, 2, 3], []], "0[.]10", 10.0),
        ([], "", None),
        ([0, 12.5], "", None),
        ([["a", "b"]], "", None),
    ],
)
@pytest.mark.parametrize("as_sent", [lambda pairs: pairs, json.dumps], ids=["array", "text"])
def test_a_json_array_of_pairs_is_written_in_the_profiles_notation(
    sent: Any, segments: str, seconds: float | None, as_sent: Any
) -> None:
    assert stored(as_sent(sent)) == (segments, seconds)


def test_an_array_without_pairs_yields_to_the_next_place() -> None:
    assert stored([], "0[.]5") == ("0[.]5", 5.0)
    assert stored([["a", "b"]], [], [[1, 2]]) == ("1[.]2", 1.0)
    assert stored({"0": 5}) == ("", None)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=6))
def test_each_second_counts_once_in_any_order(pairs: list[list[int]]) -> None:
    covered = {second for begin, end in pairs for second in range(begin, end)}
    seconds = float(len(covered)) if pairs else None
    assert stored(pairs)[1] == seconds
    assert stored("[,]".join(f"{begin}[.]{end}" for begin, end in pairs))[1] == seconds
