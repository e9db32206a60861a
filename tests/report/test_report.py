"""The report's command: its numbers against sums by hand, and what it says."""

from __future__ import annotations

import os
import re
import sys
from html import unescape
from pathlib import Path

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Cli
from tests.support.dirty import OTHER_PAGE, TITLE, Dirty
from tests.support.reports import DAY, LESSON, Report, drawn, text, viewing, write
from tests.support.watched import Watched, row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_stream", "report_settings")]


@pytest.fixture
def alone(
    watching: Settings, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> Watched:
    """Section 2001, in a database without others."""
    monkeypatch.setenv("CLICKHOUSE_DATABASE", watching.clickhouse_database)
    return Watched(clickhouse, watching.clickhouse_database, section=2001)


def insert_lesson(here: Watched) -> None:
    """24 viewers: 8 leave after 10 seconds, 16 play all of it, and 6 of these 40 to 50 again."""
    for number in range(24):
        stretches = [(0, 10)] if number < 8 else [(0, 100)]
        if number >= 18:
            stretches.append((40, 50))
        here.insert(*viewing(f"learner {number}", (number % 2) * DAY, *stretches))


@pytest.fixture
def lesson(watched: Watched) -> Watched:
    """A section with the lesson."""
    insert_lesson(watched)
    return watched


@pytest.fixture(scope="module")
def page(
    clickhouse: ClickHouseServer,
    watched_database: str,
    report_settings: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The lesson's report, written once for the tests that only look at it."""
    here = Watched(clickhouse, watched_database)
    insert_lesson(here)
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger.handlers[0], "stream", sys.stderr)
        return write(folder, str(here.section))


def test_a_videos_numbers_are_those_of_its_viewers(page: Path) -> None:
    # Watched: 8 viewers of 10 seconds and 16 of 100; played: 6 times 10 seconds more.
    assert "The lesson 24 24 16 28 29 70% " in text(page)
    assert "8 of 24 viewers stop" in text(page)
    assert "learner 9" not in page.read_text(encoding="utf-8")


def test_each_place_shows_first_watch_and_rewatch(page: Path) -> None:
    (video,) = drawn(page)["videos"]
    assert video["viewers"] == [24] * 10 + [16] * 90
    assert video["again"] == [0] * 40 + [6] * 10 + [0] * 50
    assert video["retention"] == ("24 viewers played the beginning, 16 the middle and 16 the end.")


def test_viewers_are_worked_out_once_or_by_each_view_where_there_can_be_no_table(
    lesson: Watched,
    report: Report,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(clickhouse, "hook", lambda point, sql: asked.append(sql))
    held = drawn(report("--learners"))
    views = rf"{lesson.database}\.(video_(viewers|engagement|retention|dropoff|seeks)|viewer_prog)"
    assert sum(bool(re.search(views, sql)) for sql in asked) == 1
    assert "DROP TEMPORARY TABLE" in asked[-1]

    def lose_the_table(_: str, sql: str) -> None:
        if "GROUPING SETS" in sql and "viewers_of_report" in sql:
            clickhouse.engine.query("DROP TEMPORARY TABLE viewers_of_report")

    monkeypatch.setattr(clickhouse, "hook", lose_the_table)
    assert drawn(report("--learners")) == held
    asked.clear()
    monkeypatch.setattr(clickhouse, "hook", lambda point, sql: asked.append(sql))
    monkeypatch.setattr(clickhouse, "read_only", True)
    assert drawn(report("--learners")) == held
    assert sum(bool(re.search(views, sql)) for sql in asked) == 6


@pytest.mark.ci
def test_stops_seeks_and_days_are_drawn(page: Path) -> None:
    (video,) = drawn(page)["videos"]
    # 8 stopped at 10 seconds. Those who played a part again stopped at 50, and had completed the
    # video; the others stopped at the end.
    others, completed = video["stops"]
    assert others == [0] * 10 + [8] + [0] * 89
    assert completed == [0] * 50 + [6] + [0] * 48 + [10]
    assert video["top_seeks"] == [["1:39", "0:40", 6, 6]]
    assert video["seeks"] == [[8, 0, 6], [19, 6, 0]]
    assert video["periods"] == [["2024-03-01", 12, 12], ["2024-03-02", 12, 12]]


@pytest.mark.ci
def test_days_become_weeks_where_there_are_many_and_small_groups_are_hidden_if_asked(
    lesson: Watched, report: Report
) -> None:
    lesson.insert(*viewing("learner 0", 61 * DAY, (0, 10)))
    page = report("--hide-below", "9")
    # 1 March 2024 was a Friday, 1 May a Wednesday.
    assert drawn(page)["periods"] == [["2024-02-26", 24, 24], ["2024-04-29", None, None]]
    assert "By the week (UTC)" in text(page)
    assert "8 of 24 viewers stop" not in text(page)


@pytest.mark.ci
def test_a_wrong_clock_does_not_stretch_the_axis_and_is_told(
    lesson: Watched, report: Report
) -> None:
    for clock in ("1904-01-01 12:00:00", "2099-07-01 12:00:00", "2203-10-06 12:00:00"):
        wrong = {"timestamp": clock, "user_id": f"of {clock}", "session_id": clock}
        lesson.insert(row(0, "played", video_url=LESSON, video_time=0, **wrong))
    page = report()
    assert drawn(page)["periods"] == [["2024-03-01", 12, 12], ["2024-03-02", 12, 12]]
    # The last statement: learner 23 pauses 115 seconds after midnight of the second day. 24
    # viewers sent two statements, 6 of them three more.
    said = (
        "69 statements of players; 3 of them had no usable time, or one before 2010 or more than a"
        " day after the last bundle"
    )
    assert "Data until 2024-03-02 00:01 (UTC)." in text(page)
    assert said in text(page)
    days = [day for (day,) in lesson.view("section_daily", "day")]
    assert [days[0], *days[-2:]] == ["1904-01-01", "2099-07-01", "2203-10-06"]


def test_since_leaves_out_what_was_before_and_statements_without_a_time_and_says_so(
    lesson: Watched, report: Report
) -> None:
    lesson.insert(row(0, "played", timestamp=0, timestamp_source="none", video_url=LESSON))
    found = text(report("--since", "2024-03-02", "--until", "9999-12-31"))
    # Half of each kind: 4 viewers of 10 seconds and 8 of 100, 3 of whom played 10 again, which
    # makes 14.5 minutes; Python rounds a half to the even number.
    assert "(UTC). Only days from 2024-03-02 to 9999-12-31." in found
    assert "Data until 2024-03-02 00:01 " in found
    assert "The lesson 12 12 8 14 14 70% " in found
    assert "33 statements of players, without those that had no time at all." in found


def test_days_begin_where_the_time_zone_says_and_the_last_is_included(
    lesson: Watched, report: Report
) -> None:
    """Sessions began at midnight of 1 and 2 March, in UTC: in New York, the evenings before."""
    new_york = ("--time-zone", "America/New_York")
    page = report(*new_york)
    assert drawn(page)["periods"] == [["2024-02-29", 12, 12], ["2024-03-01", 12, 12]]
    assert "Data until 2024-03-01 19:01 (America/New_York)." in text(page)
    only = text(report(*new_york, "--until", "2024-02-29"))
    assert "Data until 2024-02-29 19:01 (America/New_York). Only days up to 2024-02-29." in only
    assert "The lesson 12 12 8 14 14 70% " in only
    assert "The lesson 12 12 8 14 14 70% " in text(report("--until", "2024-03-01"))
    # Midnight of Monday, 4 March, is a Sunday evening there; 61 days make it weeks.
    lesson.insert(*viewing("learner 0", 3 * DAY, (0, 10)), *viewing("ada", 64 * DAY, (0, 10)))
    assert drawn(report(*new_york))["periods"] == [["2024-02-26", 25, 24], ["2024-04-29", 1, 1]]


def test_until_leaves_out_statements_without_a_time(lesson: Watched, report: Report) -> None:
    lesson.insert(row(0, "played", timestamp=0, timestamp_source="none", video_url=LESSON))
    assert "33 statements of players, without those" in text(report("--until", "2024-03-01"))


def test_who_has_not_watched_is_named_if_asked_for_also_whoever_only_opened_a_video(
    lesson: Watched, report: Report
) -> None:
    lesson.insert(*viewing("learner 99", 0, (0, 10), video_url="https://videos.example.edu/rare"))
    lesson.insert(row(5, "initialized", video_url=LESSON, user_id="opened", video_length=100))
    data = drawn(report("--learners"))
    names = [{data["learners"][n] for n in v["not_watched_by"]} for v in data["videos"]]
    page = "(https://lms.example.edu)"
    assert names == [
        {f"learner 99 {page}", f"opened {page}"},
        {f"opened {page}", *(f"learner {n} {page}" for n in range(24))},
    ]


def test_namesakes_repeats_and_versions_are_counted_as_the_views_count_them(
    on_dirty: Dirty, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two are called viewer-3; the numbers are those of tests/support/dirty.py."""
    page = write(tmp_path, "2001", "--learners")
    written = text(page)
    for figure in (
        "opened 8 ",
        "played 8 ",
        "sessions 8 ",
        "minutes watched 5.0 ",
        "with repeats 5.3 ",
        "finished 1 ",
    ):
        assert figure in written
    assert "Data until 2024-03-02 09:00 (UTC)." in written
    assert "24 statements of players" in written
    assert capsys.readouterr().err == ""
    # Of each video: viewers, sessions, who finished it, length.
    data = drawn(page)
    videos = data["videos"]
    figures = [video["figures"] for video in videos]
    assert [[shown[at] for at in (1, 3, 2, 7)] for shown in figures] == [
        ["6", "6", "0", "1:40"],
        ["2", "2", "1", "1:00"],
    ]
    assert f"{TITLE} 2 " in unescape(written)
    assert [video["top_seeks"] for video in videos] == [[["0:10", "1:10", 2, 2]], []]
    assert data["periods"] == [["2024-03-01", 7, 7], ["2024-03-02", 1, 1]]
    assert [video["periods"] for video in videos] == [
        [["2024-03-01", 6, 6]],
        [["2024-03-01", 1, 1], ["2024-03-02", 1, 1]],
    ]
    found = [data["learners"][n] for video in videos for n in video["not_watched_by"]]
    assert f"viewer-3 ({OTHER_PAGE})" in found
    assert len(found) == len(set(found)) == 8


def test_a_section_that_does_not_exist_is_an_error_with_the_nearest_names(
    on_dirty: Dirty, tmp_path: Path, cli: Cli
) -> None:
    said = cli("report", "--section", "201", "-o", str(tmp_path / "x.html"), code=2).err
    assert "no object of section '201' was loaded: the ledger has no section 201; nearest:" in said
    assert "2001" in said
    assert list(tmp_path.iterdir()) == []


def test_a_section_without_statements_has_an_empty_report_that_a_pipe_may_take(
    on_dirty: Dirty, tmp_path: Path, cli: Cli
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        empty = ("--section", "2001", "--since", "2030-01-01", "-o", str(pipe))
        said = cli("report", *empty).err
        written = os.read(reader, 65_536)
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert written.startswith(b"<!DOCTYPE html>")
    assert b"No video statements are stored for this section and these days." in written
    assert "no video statements of section 2001 and these days are stored" in said


def test_a_video_without_a_length_has_no_share_and_who_only_opened_one_is_no_viewer(
    watched: Watched, report: Report
) -> None:
    watched.insert(*viewing("ada", 0, (0, 10), video_length=None))
    opened = {"video_url": f"{LESSON}/2", "video_title": "Opened", "video_length": None}
    watched.insert(row(0, "initialized", **opened))
    page = report()
    assert "The lesson 1 1 0 0.2 0.2 not known " in text(page)
    assert "Opened 1 0 0 0.0 0.0 not known " in text(page)
    assert [] in [video["viewers"] for video in drawn(page)["videos"]]


def test_all_sections_have_a_page_and_an_index(alone: Watched, tmp_path: Path, cli: Cli) -> None:
    odd = {"section_id": 0, "section": "../<b>R&D</b> 101%"}
    alone.insert(*viewing("ada", DAY, (0, 100)))
    alone.insert(*(one | odd for one in viewing("ada", 0, (0, 100))))
    folder = tmp_path / "pages"
    said = cli("report", "--all", "-o", str(folder))
    # The files' names have a %, which their addresses have to escape.
    name = "..%2F%3Cb%3ER%26D%3C%2Fb%3E%20101%25"
    files = (f"section-{name}.html", "section-2001.html", "index.html")
    paths = [folder / file for file in files]
    assert said.out.splitlines() == [str(path) for path in paths]
    assert sorted(folder.iterdir()) == sorted(paths)
    index = paths[-1].read_text(encoding="utf-8")
    assert "<b>" not in index
    assert f'href="section-{name.replace("%", "%25")}.html"' in index
    assert "2001 1 1 1 1 1 1.7 2024-03-02" in text(paths[-1])


@pytest.mark.ci
@pytest.mark.parametrize("section", [".", "..", "", "章" * 90])
def test_whatever_a_section_is_called_its_file_is_in_the_folder(
    section: str, alone: Watched, tmp_path: Path, cli: Cli
) -> None:
    odd = {"section_id": 0, "section": section}
    alone.insert(*(one | odd for one in viewing("ada", 0, (0, 100))))
    folder = tmp_path / "pages"
    cli("report", "--all", "-o", str(folder))
    assert list(tmp_path.iterdir()) == [folder]
    (of_section,) = set(folder.iterdir()) - {folder / "index.html"}
    assert drawn(of_section)["videos"][0]["figures"][1] == "1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--section", "1", "--all"], "not allowed with argument"),
        (["--section", "1", "--since", "1.3.2024"], "use one such as 2024-01-31"),
        (["--section", "1", "--hide-below", "-1"], "use 0 or more"),
        (["--section", "1", "--time-zone", "Berlin"], "use a name such as Europe/Berlin"),
        (["--section", "1", "--time-zone", "../x"], "use a name such as Europe/Berlin"),
        (["--section", "1", "--time-zone", "right/UTC"], "use a name such as Europe/Berlin"),
        ([], "one of the arguments --section --all is required"),
        (["--all", "--title", "x"], "--title is for one section"),
        (["--all", "--roster", "x"], "--roster is for one section"),
        (["--all", "--progress", "x"], "--progress is for one section"),
        (["--section", "1", "--since", "2024-03-02", "--until", "2024-03-01"], "is after --until"),
        (["--section", "1", "-o", "./x.csv", "--progress", "x.csv"], "name the same file"),
        *(
            (["--section", "1", "--hide-below", "5", *people], "--hide-below hides people")
            for people in (["--learners"], ["--roster", "x"], ["--progress", "x"])
        ),
    ],
)
def test_options_that_cannot_be_or_contradict_each_other_are_refused(
    options: list[str], message: str, tmp_path: Path, cli: Cli
) -> None:
    assert message in cli("report", "-o", str(tmp_path / "x.html"), *options, code=2).err
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_told_before_anything_is_read_and_nothing_stays_beside_it(
    tmp_path: Path, clickhouse: ClickHouseServer, cli: Cli
) -> None:
    (folder := tmp_path / "reports").mkdir()
    (file := tmp_path / "file").touch()
    nowhere = tmp_path / "nowhere"
    clickhouse.hook = lambda point, sql: pytest.fail(sql)
    try:
        for path, code, said in (
            (folder, 2, f"{folder} is a folder: add the name of a file to it"),
            (file / "more.html", 2, f"there is no folder {file}: make it first"),
            (nowhere / "report.html", 2, f"there is no folder {nowhere}: make it first"),
            (folder / ("x" * 300), 1, "cannot read or write a file"),
        ):
            assert said in cli("report", "--section", "1", "-o", str(path), code=code).err
        said = cli("report", "--all", "-o", str(nowhere / "deeper"), code=2).err
        assert f"there is no folder {nowhere}" in said
        progress = ["--progress", str(nowhere / "x.csv")]
        cli("report", "--section", "1", "-o", str(tmp_path / "x"), *progress, code=2)
    finally:
        clickhouse.hook = lambda *_: None
    assert set(tmp_path.iterdir()) == {file, folder}


def test_missing_views_are_named(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cli: Cli,
) -> None:
    # `settings` has a database without the views, and names it in the environment.
    monkeypatch.setenv("CLICKHOUSE_DATABASE", settings.clickhouse_database)
    assert "video_" in cli("report", "--section", "1", "-o", str(tmp_path / "x.html"), code=1).err
