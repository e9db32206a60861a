"""The report in a real browser: what is drawn, by keyboard, on a phone, and for a screen reader."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.watched import FIGURES
from xapi_etl_processor.report.figures import (
    ALL_DAYS,
    Period,
    Place,
    Producer,
    Section,
    Seek,
    Stop,
    Video,
)
from xapi_etl_processor.report.findings import find
from xapi_etl_processor.report.learners import Learner
from xapi_etl_processor.report.page import index_page, section_page

CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.ci,
    pytest.mark.slow,
    pytest.mark.skipif(
        not CHROMIUM and "REQUIRE_REAL_SERVER" not in os.environ,
        reason="NOT TESTED: the report in a browser (apt-get install chromium)",
    ),
]

FRIDAY = date(2024, 3, 1)
A4_WITHIN_MARGINS = 680
"""CSS pixels: 210 mm less a margin of 15 mm on each side."""
SOMEBODY = Learner("https://lms.example.edu", "somebody")
LESSON = replace(
    FIGURES,
    places=(Place(24, 0, 24),) * 40 + (Place(16, 6, 22),) * 10 + (Place(16, 0, 16),) * 50,
    stops=(Stop(10, 8, 0), Stop(99, 16, 16)),
    seeks=(Seek(99.0, 40.0, 7, 6),),
    periods=(Period(FRIDAY, 12, 20), Period(FRIDAY + timedelta(1), None, None)),
)
TITLES = ("<img src=x onerror=alert(1)>", "الدرس الأول", "細胞分裂", "a" * 300)
SECTION = Section(
    "2001",
    ALL_DAYS,
    datetime(2024, 3, 2, 12, tzinfo=UTC),
    1234,
    5,
    31,
    weekly=False,
    videos=(
        LESSON,
        replace(LESSON, url="urn:ten-hours", title="Ten hours", seconds=36_000.0, viewers=3),
        Video("https://videos.example.edu/3", "Hidden", 50.0, *(None,) * 6),
        Video("https://videos.example.edu/4", "", 0.0, 2, 2, 0, 0.0, 0.0, None),
        *(replace(LESSON, url=f"urn:{title}", title=title) for title in TITLES),
    ),
    periods=LESSON.periods,
    producers=(Producer("https://lms.example.edu", "LMS", 30, 0.02),),
    learners=(SOMEBODY,),
)


@dataclass
class Opened:
    """A page in the browser, what it asked the network for, and what its console said."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def open_everything(self) -> None:
        """Open each video, and the tables of the first; wait until all is drawn."""
        self.page.eval_on_selector_all("details.video", "all => all.forEach(d => d.open = true)")
        self.page.wait_for_function(
            "() => document.querySelectorAll('details.video .chart').length >= 4"
            " && [...document.querySelectorAll('.chart')].every(c => c.querySelector('svg')"
            " || c.textContent === 'Nothing to show.')"
        )
        self.page.eval_on_selector_all(
            "#v0 details, .note", "all => all.forEach(d => d.open = true)"
        )

    def violations(self) -> list[str]:
        """What axe-core finds wrong (WCAG 2 A and AA, and its best practices)."""
        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Root, as in many a container, has no sandbox.
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


def html_of(section: Section) -> str:
    return section_page(section, {video.url: find(video) for video in section.videos})


@pytest.fixture(scope="module")
def report() -> str:
    """The report of SECTION."""
    return html_of(SECTION)


@pytest.fixture
def show(browser: Browser, report: str, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens the report, or another page, without a network."""
    contexts = []

    def opened(html: str = report, fragment: str = "", **options: Any) -> Opened:
        file = tmp_path / "report.html"
        file.write_text(html, encoding="utf-8")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        shown = Opened(context.new_page())
        shown.page.on("request", lambda request: shown.requests.append(request.url))
        shown.page.on("console", lambda message: shown.messages.append(message.text))
        shown.page.on("pageerror", lambda error: shown.messages.append(str(error)))
        shown.page.goto(file.as_uri() + fragment)
        return shown

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 360, "height": 800}, "is_mobile": True}, id="phone"),
    ],
)
def test_it_is_accessible(show: Callable[..., Opened], options: dict[str, Any]) -> None:
    shown = show(**options)
    shown.open_everything()
    assert shown.violations() == []
    width = shown.page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1], "the page itself must not scroll sideways"
    assert len(shown.requests) == 1
    assert shown.messages == []


def test_the_index_is_accessible(show: Callable[..., Opened]) -> None:
    shown = show(index_page([("section-2001.html", SECTION)]), color_scheme="dark")
    assert shown.violations() == []
    assert shown.messages == []


def test_a_video_shows_its_figures_charts_and_tables_without_a_network(
    show: Callable[..., Opened], tmp_path: Path
) -> None:
    shown = show(fragment="#v0")
    page = shown.page
    video = page.locator("#v0")
    assert video.locator(".figures > div").all_inner_texts() == [
        *("opened\n26", "played\n24", "finished\n16", "sessions\n30"),
        *("minutes watched\n28", "with repeats\n29", "average share\n70%", "length\n1:40"),
    ]
    charts = video.locator("svg")
    expect(charts).to_have_count(4)
    retention = video.locator('[data-chart="retention"]')
    assert retention.get_attribute("aria-label") == (
        "24 viewers played the beginning, 16 the middle and 16 the end."
        " The table below has the numbers."
    )

    def rows(name: str) -> list[list[str]]:
        lines = video.locator(f'[data-table="{name}"] tbody tr')
        return [line.locator("th, td").all_text_contents() for line in lines.all()]

    places = rows("retention")
    assert len(places) == 100
    assert places[39:41] == [["0:39", "0:40", "24", "0"], ["0:40", "0:41", "16", "6"]]
    assert rows("stops") == [["0:10", "0:11", "8", "0"], ["1:39", "1:40", "0", "16"]]
    assert rows("seeks") == [["0:40", "0:45", "0", "7"], ["1:35", "1:40", "7", "0"]]
    assert rows("top_seeks") == [["1:39", "0:40", "7", "6"]]
    sentences = {
        "stops": "Viewers who did not finish the video stopped most often between 0:10 and 0:11"
        " (8 of them).",
        "seeks": "The most frequent seek goes from 1:39 to 0:40, 7 times.",
        "periods": "The busiest day was 2024-03-01, with 20 sessions.",
    }
    for name, sentence in sentences.items():
        assert video.locator(f'[data-text="{name}"]').inner_text() == sentence
        label = video.locator(f'[data-chart="{name}"]').get_attribute("aria-label")
        assert label == f"{sentence} The table below has the numbers."
    assert rows("periods") == [["2024-03-01", "20", "12"], ["2024-03-02", "hidden", "hidden"]]
    assert video.locator('[data-list="learners"] li').all_text_contents() == [
        "somebody (https://lms.example.edu)"
    ]
    assert shown.requests == [(tmp_path / "report.html").as_uri()]
    assert shown.messages == []


def test_the_curve_is_as_high_as_the_plays_and_places_that_stand_out_are_marked(
    show: Callable[..., Opened],
) -> None:
    """The bars of the chart, read back by their sizes: two layers, on an axis that begins at 0."""
    page = show(fragment="#v0").page
    bars = page.locator('#v0 [data-chart="retention"] .mark-rect path')
    expect(bars).to_have_count(200)
    colours = ("var(--first)", "var(--again)")
    heights = bars.evaluate_all(
        "all => all.map(bar => [bar.getAttribute('fill'), bar.getBBox().height])"
    )
    first, again = ([h for fill, h in heights if fill == colour] for colour in colours)
    one = first[0] / 24
    assert [round(height / one) for height in first] == [24] * 40 + [16] * 60
    assert [round(height / one) for height in again] == [0] * 40 + [6] * 10 + [0] * 50
    assert page.locator("#v0 > summary span").all_inner_texts() == [
        "8 of 24 viewers stop for good before 0:11.",
        "6 of 16 viewers play 0:40 to 0:50 more than once."
        " On average over the video, fewer than one would.",
    ]
    expect(page.locator('#v0 [data-chart="retention"] .layer_1_marks line')).to_have_count(2)


def test_long_videos_have_hours_and_an_absurd_length_is_drawn_too(
    show: Callable[..., Opened],
) -> None:
    page = show(fragment="#v1").page
    labels = page.locator('#v1 [data-chart="retention"] .role-axis-label text').all_text_contents()
    assert {"2:00:00", "10:00:00"} <= set(labels)
    endless = replace(SECTION, videos=(replace(LESSON, seconds=1e30),))
    shown = show(html_of(endless), "#v0")
    expect(shown.page.locator("#v0 svg")).to_have_count(4)
    assert shown.messages == []


def test_videos_are_sorted_and_opened_by_keyboard(show: Callable[..., Opened]) -> None:
    page = show().page
    titles = page.locator("#videos tbody th")
    page.get_by_role("button", name="title").focus()
    page.keyboard.press("Enter")
    assert titles.first.inner_text().startswith("<img")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="opened")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="played", exact=True)).to_be_focused()
    page.keyboard.press("Space")
    heading = page.locator("#videos thead th").nth(2)
    assert heading.get_attribute("aria-sort") == "descending"
    values = page.locator("#videos tbody td:nth-child(3)").all_inner_texts()
    assert values == ["24"] * 5 + ["3", "2", "hidden"]
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.locator("#videos tbody td:nth-child(3)").first.inner_text() == "hidden"
    page.get_by_role("link", name="Ten hours").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#v1 > summary")).to_be_focused()
    expect(page.locator("#v1 .figures")).to_be_visible()


def test_on_paper_it_is_dark_on_white_and_without_javascript_the_ranking_is_there(
    show: Callable[..., Opened],
) -> None:
    page = show(java_script_enabled=False, color_scheme="dark").page
    expect(page.locator("#videos tbody tr")).to_have_count(8)
    expect(page.locator("noscript p")).to_be_visible()
    page.emulate_media(media="print")
    style = (
        "element => [getComputedStyle(element).color, getComputedStyle(element).backgroundColor]"
    )
    assert page.locator("body").evaluate(style) == ["rgb(0, 0, 0)", "rgb(255, 255, 255)"]


def test_on_paper_the_ranking_is_no_wider_than_a4_and_names_follow_one_another(
    show: Callable[..., Opened],
) -> None:
    html = html_of(replace(SECTION, learners=(SOMEBODY, replace(SOMEBODY, user_id="another"))))
    shown = show(html, fragment="#v0", viewport={"width": A4_WITHIN_MARGINS, "height": 1000})
    shown.open_everything()
    shown.page.emulate_media(media="print")
    ranking = shown.page.locator("#videos").bounding_box()
    assert ranking
    assert ranking["width"] <= A4_WITHIN_MARGINS
    names = shown.page.locator("#v0 [data-list=learners] li")
    first, second = (names.nth(at).bounding_box() for at in (0, 1))
    assert first
    assert second
    assert first["y"] == second["y"]


def test_paper_has_every_video_with_its_charts_and_each_begins_a_page(
    show: Callable[..., Opened],
) -> None:
    shown = show(fragment="#v0")
    page = shown.page
    page.evaluate(
        """() => addEventListener("afterprint", () => {
            const videos = [...document.querySelectorAll("details.video")];
            window.printed = videos.map((video) => video.querySelectorAll(".chart svg").length);
        })"""
    )
    paper = page.pdf(format="A4")
    # Nothing is known of two: one is hidden, the other has no length.
    assert page.evaluate("printed") == [4, 4, 0, 0, 4, 4, 4, 4]
    assert len(re.findall(rb"/Type */Page\b", paper)) >= 1 + len(SECTION.videos)
    assert page.evaluate("[...document.querySelectorAll('details.video')].map(v => v.open)") == [
        True,
        *[False] * 7,
    ]
    page.emulate_media(media="print")
    expect(page.locator(".on-paper")).to_be_visible()
    expect(page.locator(".note").first).to_be_hidden()
    assert shown.messages == []


@pytest.mark.parametrize(
    ("weeks", "days", "labels"),
    [
        (False, [FRIDAY], ["1 Mar"]),
        (False, [FRIDAY, FRIDAY + timedelta(2)], ["1 Mar", "2 Mar", "3 Mar"]),
        (
            True,
            [FRIDAY + timedelta(3 + 7 * week) for week in range(104)],
            [
                *(f"{month} 2024" for month in ("May", "Jul", "Sep", "Nov")),
                *(f"{month} 2025" for month in ("Jan", "Mar", "May", "Jul", "Sep", "Nov")),
                *("Jan 2026", "Mar 2026"),
            ],
        ),
    ],
)
def test_a_day_is_as_wide_as_a_day_and_labels_have_one_form(
    show: Callable[..., Opened], weeks: bool, days: list[date], labels: list[str]
) -> None:
    periods = tuple(Period(day, 1, 1) for day in days)
    section = replace(SECTION, videos=(LESSON,), periods=periods, weekly=weeks)
    # Whatever the reader's time zone is.
    page = show(html_of(section), timezone_id="Pacific/Auckland").page
    chart = page.locator("#section-periods")
    bars = chart.locator(".mark-rect path")
    expect(bars).to_have_count(len(days))
    shown = chart.locator(".role-axis-label text:visible").all_text_contents()
    assert [label for label in shown if " " in label] == labels
    assert max(bar.bounding_box()["width"] for bar in bars.all()) <= 100  # type: ignore[index]


def test_five_hundred_videos_fit_in_three_megabytes(show: Callable[..., Opened]) -> None:
    places = tuple(Place(9000 - at, 200 + at, 9900 + at) for at in range(100))
    stops = tuple(Stop(at, 90, 10) for at in range(100))
    seeks = tuple(Seek(at * 5.0, at * 3.0, 300 - at, 100) for at in range(100))
    weeks = tuple(Period(FRIDAY + timedelta(7 * at), 700 + at, 900 + at) for at in range(20))
    lecture = Video(
        *("", "", 600.0, 10_000, 12_345, 6789, 45_678.9, 56_789.1, 0.756, 10_500),
        *(places, stops, seeks, weeks),
    )
    videos = tuple(
        replace(
            lecture,
            url=f"https://www.youtube.com/watch?v=video{number:06}",
            title=f"Lecture {number}: what a title says, at its usual length",
        )
        for number in range(500)
    )
    html = html_of(replace(SECTION, videos=videos, weekly=True))
    assert len(html.encode()) <= 3_000_000
    shown = show(html)
    expect(shown.page.locator("#videos tbody tr")).to_have_count(500)
    # Only the curves in sight are drawn.
    shown.page.locator('.spark[data-video="0"]').scroll_into_view_if_needed()
    shown.page.wait_for_selector('.spark[data-video="0"] svg')
    assert shown.page.locator(".spark svg").count() < 100


def test_a_phone_shows_the_whole_legend(show: Callable[..., Opened]) -> None:
    page = show(fragment="#v0", viewport={"width": 360, "height": 800}, is_mobile=True).page
    chart = page.locator('#v0 [data-chart="retention"] svg')
    expect(chart).to_be_visible()
    inside = chart.evaluate(
        "svg => [...svg.querySelectorAll('.role-legend-label text')].map(label =>"
        " label.getBoundingClientRect().right <= svg.getBoundingClientRect().right)"
    )
    assert inside == [True] * 4
