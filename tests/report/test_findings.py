"""The report's findings: only what is unlikely to be chance, in plain words."""

from __future__ import annotations

import random
from dataclasses import replace
from fractions import Fraction
from math import comb

import pytest

from xapi_etl_processor.report.figures import Place, Stop, Video
from xapi_etl_processor.report.findings import chance_of, find

QUIET = (Place(60, 1, 61),) * 100


def video(**more: object) -> Video:
    """60 viewers of 100 seconds: each place is replayed by one, all stop at the end."""
    plain = Video("https://videos.example.edu/1", "x", 100.0, 60, 60, 0, 1.0, 1.0, 1.0)
    return replace(plain, **{"places": QUIET, "stops": (Stop(99, 60, 0),), **more})  # type: ignore[arg-type]


def stops(*here: tuple[int, int]) -> tuple[Stop, ...]:
    """Stops at buckets, and the other viewers' at the end."""
    return (*(Stop(at, n, 0) for at, n in here), Stop(99, 60 - sum(n for _, n in here), 0))


def rewatchers(first: int, last: int, number: int, viewers: int = 60) -> tuple[Place, ...]:
    there = Place(viewers, number, viewers + number)
    return (*QUIET[:first], *(there,) * (last - first + 1), *QUIET[last + 1 :])


def sentences(of: Video) -> list[str]:
    return [finding.sentence for finding in find(of)]


@pytest.mark.parametrize(
    ("count", "of", "rate"),
    [(0, 10, "1/2"), (1, 10, "1/10"), (7, 10, "1/3"), (30, 400, "1/20"), (3, 9, "9/10")],
)
def test_a_chance_is_the_binomial_one(count: int, of: int, rate: str) -> None:
    p = Fraction(rate)
    exact = sum(comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(count, of + 1))
    assert chance_of(count, of, float(p)) == pytest.approx(float(exact), rel=1e-6)


def test_a_chance_has_its_limits() -> None:
    assert chance_of(1, 10, 0) == 0
    assert chance_of(10, 10, 1) == 1
    assert chance_of(11, 10, 0.5) == 0
    assert chance_of(900, 10_000, 0.0001) < 1e-300


def test_nothing_stands_out_where_viewers_do_alike_everywhere() -> None:
    assert find(video()) == []
    assert find(video(stops=stops(*((at, 1) for at in range(0, 90, 3))))) == []


@pytest.mark.parametrize(
    ("places", "seconds", "said"),
    [
        ([(70, 15)], 100.0, "15 of 60 viewers stop for good between 1:10 and 1:11."),
        # Stops that are near each other are one finding.
        (
            [(70, 4), (72, 3), (74, 5)],
            100.0,
            "12 of 60 viewers stop for good between 1:10 and 1:15.",
        ),
        # Stops near the beginning are counted from the first second.
        (
            [(0, 1), (5, 19)],
            600.0,
            "20 of 60 viewers stop for good before 0:36.",
        ),
        ([(9, 30)], 600.0, "30 of 60 viewers stop for good before 1:00."),
    ],
)
def test_a_place_where_many_leave_is_a_finding(
    places: list[tuple[int, int]], seconds: float, said: str
) -> None:
    assert sentences(video(stops=stops(*places), seconds=seconds)) == [said]


def test_stops_of_viewers_who_completed_the_video_are_none() -> None:
    assert find(video(stops=(Stop(70, 15, 15), Stop(99, 45, 0)))) == []


def test_to_stop_in_the_last_twentieth_is_to_have_finished() -> None:
    assert find(video(stops=stops((95, 40)))) == []
    assert find(video(stops=stops((94, 40)))) != []


def test_two_places_where_many_leave_are_two_findings() -> None:
    found = find(video(stops=stops((20, 12), (70, 12)), seconds=1000.0))
    assert [finding.from_second for finding in found] == [200, 700]
    assert [finding.to_second for finding in found] == [210, 710]


def test_a_place_that_many_play_again_is_a_finding() -> None:
    # One of 60 plays each of 90 places again, and 30 of 60 each of the other ten: 390 of 6000.
    assert sentences(video(places=rewatchers(40, 49, 30))) == [
        "30 of 60 viewers play 0:40 to 0:50 more than once. On average over the video, 4 would."
    ]


def test_places_in_the_order_of_the_video_whatever_they_are() -> None:
    found = find(video(places=rewatchers(80, 82, 30), stops=stops((70, 15)), seconds=1000.0))
    assert [finding.kind for finding in found] == ["stop", "replay"]


def test_the_three_highest_of_each_kind_are_marked() -> None:
    places = list(QUIET)
    # A run of places is as high as its highest.
    for at, number in ((10, 30), (30, 25), (49, 24), (50, 40), (51, 24), (70, 35)):
        places[at] = Place(60, number, 60 + number)
    found = find(video(places=tuple(places), stops=stops((5, 12), (25, 9), (45, 9), (65, 9))))
    assert [f.from_second for f in found if f.kind == "replay"] == [10, 49, 70]
    # Of equal numbers, the fewer viewers are still there the less likely it is.
    assert [f.to_second for f in found if f.kind == "stop"] == [6, 46, 66]


@pytest.mark.parametrize(("viewers", "found"), [(19, 0), (20, 1)])
def test_a_small_audience_has_no_findings(viewers: int, found: int) -> None:
    places = rewatchers(40, 41, 12, viewers=viewers)
    assert len(find(video(viewers=viewers, places=places))) == found


@pytest.mark.parametrize(("number", "found"), [(4, 0), (5, 1)])
def test_few_viewers_are_no_finding_however_unlikely(number: int, found: int) -> None:
    nobody = (Place(60, 0, 60),) * 99
    assert len(find(video(places=(*nobody, Place(60, number, 60))))) == found


@pytest.mark.parametrize(("hide_below", "found"), [(15, 1), (16, 0)])
def test_a_group_that_is_to_be_hidden_is_no_finding(hide_below: int, found: int) -> None:
    assert len(find(video(stops=stops((70, 15))), hide_below)) == found


def test_a_video_whose_numbers_are_hidden_or_missing_has_no_findings() -> None:
    assert find(video(viewers=None)) == []
    assert find(video(places=(), stops=())) == []
    assert find(video(places=(Place(None, None, None),) * 100)) == []


def test_chance_alone_marks_few_videos() -> None:
    """Viewers stop and play again everywhere alike, in 400 videos; the rule allows 5 % for each."""
    rng = random.Random(7)  # repeatable, not secret
    marked = {"stop": 0, "replay": 0}
    for _ in range(400):
        ends = [0] * 100
        for _ in range(60):
            at = next((at for at in range(99) if rng.random() < 0.01), 99)
            ends[at] += 1
        places = tuple(
            Place(60, again, 60 + again)
            for again in (sum(rng.random() < 0.1 for _ in range(60)) for _ in range(100))
        )
        here = tuple(Stop(at, number, 0) for at, number in enumerate(ends) if number)
        for kind in {finding.kind for finding in find(video(places=places, stops=here))}:
            marked[kind] += 1
    # 20 of 400 are expected at most; 32 is 2.7 standard deviations more.
    assert marked["stop"] <= 32
    assert marked["replay"] <= 32
    # The test can fail: it has the power to see that something is marked.
    assert marked["stop"] + marked["replay"] > 0
