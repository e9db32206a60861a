"""The report's pages: what they hide, and what they make of odd titles."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from tests.support.watched import FIGURES
from xapi_etl_processor.report import charts
from xapi_etl_processor.report.definitions import DEFINITIONS, LIMITS
from xapi_etl_processor.report.figures import (
    ALL_DAYS,
    Days,
    Period,
    Place,
    Producer,
    Section,
    Seek,
    Stop,
    Video,
)
from xapi_etl_processor.report.findings import RULE, Finding
from xapi_etl_processor.report.learners import Learner
from xapi_etl_processor.report.page import (
    address_at,
    index_page,
    names,
    no_finding,
    section_page,
    totals,
)
from xapi_etl_processor.report.small_groups import hide

VIDEO = replace(
    FIGURES,
    places=(Place(24, 0, 24),) * 40 + (Place(16, 6, 22),) * 60,
    stops=(Stop(10, 8, 0), Stop(99, 0, 0), Stop(50, 16, 16)),
    seeks=(Seek(99.0, 40.0, 20, 6),),
    periods=(Period(date(2024, 3, 1), 12, 20), Period(date(2024, 3, 2), 13, 10)),
)
NO_COOKIES = "https://www.youtube-nocookie.com"
RARE = Video("https://videos.example.edu/2", "Rare", 50.0, 1, 9, 0, 3.0, 4.0, 0.1)


def section(*videos: Video) -> Section:
    return Section("2001", ALL_DAYS, None, 99, 0, 24, False, videos, VIDEO.periods)


@pytest.fixture(autouse=True)
def _without_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making the drawing code takes seconds; test_browser.py runs it."""
    monkeypatch.setattr(charts, "script", lambda: "")


def page(*videos: Video) -> str:
    return section_page(section(*videos), {video.url: [] for video in videos})


def test_nothing_is_hidden_unless_asked_for() -> None:
    for below in (0, 1):
        assert hide(section(VIDEO, RARE), below) == section(VIDEO, RARE)


def test_a_video_with_few_viewers_shows_its_name_and_length_only() -> None:
    video, rare = hide(section(VIDEO, RARE), 2).videos
    assert video == VIDEO
    assert rare == Video(RARE.url, "Rare", 50.0, None, None, None, None, None, None)
    assert no_finding(rare) == "Hidden: few viewers."


def test_sums_do_not_show_what_is_hidden() -> None:
    assert totals(section(VIDEO, RARE))["minutes_watched"] == 31
    hidden = totals(hide(section(VIDEO, RARE), 2))
    assert hidden["minutes_watched"] is hidden["sessions"] is None


def test_places_with_few_viewers_are_hidden_and_with_few_rewatchers_how_often_they_played() -> None:
    begin = (Place(24, 0, 24),) * 40
    assert hide(section(VIDEO), 7).videos[0].places == begin + (Place(16, None, None),) * 60
    assert hide(section(VIDEO), 17).videos[0].places == begin + (Place(None, None, None),) * 60


@pytest.mark.parametrize(
    ("finished", "below", "shown"),
    [
        (16, 8, 16),
        (16, 9, None),  # 8 of 24 have not finished it
        (8, 9, None),
        (24, 9, 24),
        (26, 2, 26),
        (26, 3, None),  # 2 have finished it, but not played it
        (0, 9, 0),
    ],
)
def test_who_finished_is_hidden_if_they_or_the_others_are_few(
    finished: int, below: int, shown: int | None
) -> None:
    few = replace(section(replace(VIDEO, finished=finished)), opened=26, finished=finished)
    hidden = hide(few, below)
    assert [hidden.finished, hidden.videos[0].finished] == [shown, shown]


def test_stops_seeks_and_days_of_few_are_hidden() -> None:
    """Stops of 8 viewers, some of whom had completed the video; seeks of 6; days of 12."""
    assert hide(section(VIDEO), 8).videos[0].stops == VIDEO.stops
    assert hide(section(VIDEO), 9).videos[0].stops == VIDEO.stops[1:]
    mixed = replace(VIDEO, stops=(Stop(10, 20, 3),))
    assert hide(section(mixed), 4).videos[0].stops == ()
    assert hide(section(VIDEO), 6).videos[0].seeks == VIDEO.seeks
    assert hide(section(VIDEO), 7).videos[0].seeks == ()
    hidden = hide(section(VIDEO), 13)
    expected = (Period(date(2024, 3, 1), None, None), VIDEO.periods[1])
    assert hidden.periods == hidden.videos[0].periods == expected


def test_a_section_with_few_viewers_shows_nothing_of_them() -> None:
    producer = Producer("https://lms.example.edu", "LMS", 3, 0.5)
    seen = datetime(2024, 3, 2, 12, 34, tzinfo=UTC)
    few = replace(
        section(RARE), viewers=1, producers=(producer,), newest=seen, finished=1, statements=987
    )
    hidden = hide(few, 2)
    assert hidden.viewers is None
    assert hidden.producers == ()
    assert hidden.periods == ()
    written = section_page(hidden, {RARE.url: []}, 2) + index_page([("x.html", hidden)], 2)
    for shown in ("2024-03-", "12:34", "987", "No data"):
        assert shown not in written
    assert totals(hidden)["minutes_watched"] is None


def test_a_few_who_only_opened_a_video_are_not_shown_by_a_difference() -> None:
    video = replace(VIDEO, viewers=20, opened=22)
    few = replace(section(video), viewers=20, opened=22)
    for below, opened in ((2, 22), (3, None)):
        hidden = hide(few, below)
        assert [hidden.opened, hidden.videos[0].opened] == [opened, opened]
    every = replace(VIDEO, viewers=20, opened=20)
    assert hide(section(every), 3).videos[0].opened == 20


def test_who_only_opened_a_video_is_hidden_as_viewers_are() -> None:
    """Nobody played it. Without the rule, the sessions would show when one person came."""
    day = Period(date(2024, 3, 1), 0, 1, opened=1)
    opened = replace(VIDEO, viewers=0, opened=1, sessions=1, periods=(day,))
    hidden = hide(replace(section(opened), viewers=0, opened=1, periods=(day,)), 2)
    assert (hidden.viewers, hidden.opened, hidden.statements, hidden.periods) == (None,) * 3 + ((),)
    assert hidden.videos == (Video(opened.url, opened.title, 100.0, *(None,) * 6),)
    many = replace(section(VIDEO), periods=(day, replace(day, opened=2)))
    assert hide(many, 2).periods == (Period(day.day, None, None), replace(day, opened=2))


def test_a_producer_with_few_sessions_is_hidden() -> None:
    few, many = (Producer("https://lms.example.edu", "LMS", sessions, 0.5) for sessions in (3, 4))
    of_both = replace(section(VIDEO), producers=(few, many))
    assert hide(of_both, 4).producers == (many,)


def test_a_page_says_that_numbers_are_hidden_and_from_where_on() -> None:
    hidden = section_page(hide(section(RARE), 2), {RARE.url: []}, 2)
    assert "Numbers of fewer than 2 viewers are hidden." in hidden
    assert "are hidden." not in page(RARE)


def test_markup_in_a_title_is_shown_and_not_followed() -> None:
    title = "</script><script>alert(1)</script><!--"
    written = page(replace(VIDEO, title=title))
    assert title not in written
    assert "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!--</a>" in written


def test_markup_in_a_learners_name_cannot_end_the_script() -> None:
    who = Learner("https://lms.example.edu", "</script><img src=x>")
    named = replace(section(VIDEO), learners=(replace(who, name="<b>Ada</b>"),))
    written = section_page(named, {VIDEO.url: []})
    assert "<img" not in written
    assert "<b>" not in written


def test_a_learner_is_called_by_what_is_known() -> None:
    known = (
        Learner("https://lms.example.edu", "7"),
        Learner("", "mailto:somebody@example.edu"),
        Learner("", ""),
    )
    shown = section_page(replace(section(VIDEO), learners=known), {VIDEO.url: []})
    for name in ("7 (https://lms.example.edu)", "mailto:somebody@example.edu", "no identifier"):
        assert f'"{name}"' in shown
    assert Learner("", "7", "Ada Lovelace").label == "Ada Lovelace, 7"


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "http://[broken"])
def test_an_address_that_is_no_web_page_is_no_link(address: str) -> None:
    assert f'href="{address}' not in page(replace(VIDEO, url=address))
    assert 'href="https://videos.example.edu/1"' in page(VIDEO)


def test_a_video_without_a_title_is_named_by_its_address() -> None:
    assert f"{VIDEO.url}</a></th>" in page(replace(VIDEO, title=""))


def test_videos_with_one_title_are_told_apart_by_their_addresses() -> None:
    other = replace(VIDEO, url="https://www.youtube.com/watch?v=2")
    assert names(section(VIDEO, other, replace(RARE, title=""))) == {
        VIDEO.url: "The lesson (videos.example.edu/1)",
        other.url: "The lesson (youtube.com/watch?v=2)",
        RARE.url: RARE.url,
    }


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://www.youtube.com/watch?v=a&t=3#x", "https://www.youtube.com/watch?v=a&t=90s"),
        ("https://youtu.be/a", "https://youtu.be/a?t=90"),
        ("https://www.youtube-nocookie.com/embed/a", f"{NO_COOKIES}/embed/a?start=90"),
        ("https://www.youtube.com/@somebody", ""),
        ("https://videos.example.edu/watch?v=a", ""),
        ("javascript://youtu.be/a", ""),
        ("http://[broken", ""),
    ],
)
def test_a_mark_links_to_its_second_where_the_players_address_can_say_it(
    url: str, address: str
) -> None:
    assert address_at(url, 90.7) == address
    finding = Finding("stop", 90.7, 95, "5 of 24 viewers stop for good.")
    shown = section_page(section(replace(VIDEO, url=url)), {url: [finding]})
    link = f'<a href="{escape(address)}" rel="noreferrer">1:31</a>' if address else "1:31"
    assert f'<span class="mark">{link} many stop for good</span>' in shown


def test_a_title_stands_above_the_page_and_the_days_and_their_zone_below_it() -> None:
    days = Days(date(2024, 3, 1), date(2024, 3, 31), "Asia/Tokyo")
    seen = datetime(2024, 3, 2, 12, 34, tzinfo=UTC)
    few = replace(section(VIDEO), days=days, newest=seen)
    shown = " ".join(section_page(few, {VIDEO.url: []}, title="R&D").split())
    assert "<title>R&amp;D</title>" in shown
    assert "<h1><bdi>R&amp;D</bdi></h1>" in shown
    assert "Section <bdi>2001</bdi>." in shown
    said = "Data until 2024-03-02 12:34 (Asia/Tokyo). Only days from 2024-03-01 to 2024-03-31."
    assert said in shown
    assert "By the day (Asia/Tokyo) on which they began." in shown


@pytest.mark.parametrize(("viewers", "begins"), [(19, "Too few viewers for marks"), (20, "Places")])
def test_a_page_says_whether_there_are_enough_viewers_for_marks(viewers: int, begins: str) -> None:
    shown = page(replace(VIDEO, viewers=viewers), RARE)
    said = shown.partition("Each video</h2>")[2].partition("</p>")[0]
    assert said.removeprefix("\n<p>\n").startswith(begins)
    assert "20 viewers" in said


def test_no_definition_stands_in_the_way_and_all_are_at_the_end_for_paper() -> None:
    shown = page(VIDEO)
    before, _, paper = shown.partition('<div class="on-paper">')
    for note in re.findall(r'<details class="note">.*?</details>', before, re.DOTALL):
        before = before.replace(note, "")
    for word, meaning in DEFINITIONS.items():
        assert meaning not in unescape(before)
        assert f"<dt>{word}</dt><dd>{escape(meaning)}</dd>" in paper
    assert RULE not in before
    assert RULE in paper


def test_every_definition_is_one_of_the_page_on_watching() -> None:
    words = Path("docs/watching.md").read_text(encoding="utf-8")
    known = " ".join(words.replace("*", "").replace("`", "").split()).lower()
    for meaning in (*DEFINITIONS.values(), *LIMITS):
        assert meaning.rstrip(".").lower() in known


def test_each_series_of_a_chart_has_its_colour_and_each_axis_its_unit() -> None:
    """What viewers did first is in one colour, what they repeated and where they left in others."""

    def series(chart: dict[str, Any], channel: str = "color") -> dict[str, str]:
        scale = chart["encoding"][channel]["scale"]
        return dict(zip(scale["domain"], scale["range"], strict=True))

    def axis(chart: dict[str, Any]) -> str:
        return str(chart["encoding"]["y"]["title"])

    first, again, stop = (f"var(--{name})" for name in ("first", "again", "stop"))
    drawn = charts.specifications()
    retention, marks = drawn["retention"]["layer"]
    assert series(retention) == {"first watch": first, "rewatch": again}
    assert series(marks) == {"many play again": again, "many stop for good": stop}
    assert series(drawn["stops"]) == {"not finished": stop, "finished": first}
    assert series(drawn["seeks"]) == {"from here": stop, "to here": again}
    assert drawn["spark"]["mark"]["color"] == drawn["periods"]["mark"]["color"] == first
    units = [
        axis(chart) for chart in (retention, *(drawn[n] for n in ("stops", "seeks", "periods")))
    ]
    assert units == ["plays", "viewers", "seeks", "sessions"]
