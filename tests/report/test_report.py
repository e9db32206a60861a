"""The report's command: its numbers against sums by hand, and what it says."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER
from tests.support.dirty import OTHER_PAGE, TITLE, Dirty
from tests.support.watched import Row, Watched, row
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.cli import main
from xapi_etl_processor.report import charts
from xapi_etl_processor.report.figures import Section

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_stream")]

LESSON = "https://videos.example.edu/lesson"
DAY = 86_400

Report = Callable[..., Path]


def viewing(user: str, at: int, *stretches: tuple[int, int], **more: Any) -> list[Row]:
    """A session of a 100-second video: each stretch played and paused, with seeks between them."""
    here = {
        "user_id": user,
        "session_id": f"{user}-{at}",
        "video_url": LESSON,
        "video_title": "The lesson",
        "video_length": 100,
        **more,
    }
    rows = []
    position = 0
    for start, end in stretches:
        if start != position:
            seek = {"video_seek_from": position, "video_seek_to": start}
            rows.append(row(at, "seeked", **here, **seek))
        rows.append(row(at + 1, "played", video_time=start, **here))
        at += 2 + end - start
        position = end
        rows.append(row(at, "paused", video_time=end, **here))
    return rows


def insert_lesson(here: Watched) -> None:
    """24 viewers: 8 leave after 10 seconds, 16 play all of it, and 6 of these 40 to 50 again."""
    for number in range(24):
        stretches = [(0, 10)] if number < 8 else [(0, 100)]
        if number >= 18:
            stretches.append((40, 50))
        here.insert(*viewing(f"learner {number}", (number % 2) * DAY, *stretches))


def write(folder: Path, section: str, *options: str) -> Path:
    """Run the command for a section; the file that it wrote."""
    page = folder / "report.html"
    assert main(["report", "--section", section, "-o", str(page), *options]) == 0
    return page


@pytest.fixture(scope="module", autouse=True)
def _environment(clickhouse: ClickHouseServer, watched_database: str) -> Iterator[None]:
    """The command's settings; drawing code of 0.9 MB is only in what test_browser.py opens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLICKHOUSE_HOST", "127.0.0.1")
        patch.setenv("CLICKHOUSE_PORT", str(clickhouse.port))
        patch.setenv("CLICKHOUSE_DATABASE", watched_database)
        patch.setenv("CLICKHOUSE_USERNAME", USER)
        patch.setenv("CLICKHOUSE_PASSWORD", PASSWORD)
        patch.setattr(charts, "script", lambda: "")
        yield


@pytest.fixture
def report(watched: Watched, tmp_path: Path) -> Report:
    """Writes the section's report."""
    return lambda *options: write(tmp_path, str(watched.section), *options)


@pytest.fixture
def lesson(watched: Watched) -> Watched:
    """A section with the lesson."""
    insert_lesson(watched)
    return watched


@pytest.fixture(scope="module")
def page(
    clickhouse: ClickHouseServer, watched_database: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The lesson's report, written once for the tests that only look at it."""
    here = Watched(clickhouse, watched_database)
    insert_lesson(here)
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger.handlers[0], "stream", sys.stderr)
        return write(folder, str(here.section))


def drawn(page: Path) -> dict[str, Any]:
    """What a page's script draws."""
    found = re.search(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def text(page: Path) -> str:
    """A page's own text, without its script and markup."""
    body = page.read_text(encoding="utf-8").partition('<template id="video">')[0]
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", body, flags=re.DOTALL).split())


def test_a_videos_numbers_are_those_of_its_viewers(page: Path) -> None:
    # Watched: 8 viewers of 10 seconds and 16 of 100; played: 6 times 10 seconds more.
    assert "The lesson 24 24 28 29 70% 16 " in text(page)
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
    assert "by week (UTC)" in text(page)
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
        "Data until 2024-03-02 00:01 UTC. 69 statements; 3 of them had no usable time,"
        " or one before 2010 or more than a day after the last bundle"
    )
    assert said in text(page)
    days = [day for (day,) in lesson.view("section_daily", "day")]
    assert [days[0], *days[-2:]] == ["1904-01-01", "2099-07-01", "2203-10-06"]


def test_since_leaves_out_what_was_before_and_statements_without_a_time_and_says_so(
    lesson: Watched, report: Report
) -> None:
    lesson.insert(row(0, "played", timestamp=0, timestamp_source="none", video_url=LESSON))
    found = text(report("--since", "2024-03-02"))
    # Half of each kind: 4 viewers of 10 seconds and 8 of 100, 3 of whom played 10 again, which
    # makes 14.5 minutes; Python rounds a half to the even number.
    assert "statements since 2024-03-02 only" in found
    assert "The lesson 12 12 14 14 70% 8 " in found
    assert "33 statements, without those that had no time at all." in found


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
        "watched 5.0 ",
        "played 5.3 ",
        "completions 1 ",
    ):
        assert figure in written
    assert "Data until 2024-03-02 09:00 UTC. 24 statements" in written
    assert capsys.readouterr().err == ""
    # Of each video: viewers, sessions, completions.
    data = drawn(page)
    videos = data["videos"]
    figures = [video["figures"] for video in videos]
    names = ("viewers", "sessions", "completed", "length")
    assert [[shown[name] for name in names] for shown in figures] == [
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


def test_a_section_without_statements_has_an_empty_report_that_a_pipe_may_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert main(["report", "--section", "no such section", "-o", str(pipe)]) == 0
        written = os.read(reader, 65_536)
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert written.startswith(b"<!DOCTYPE html>")
    assert b"No video statements are stored for this section." in written
    assert "the report of section no such section is empty" in capsys.readouterr().err


def test_a_video_without_a_length_has_no_share_and_who_only_opened_one_is_no_viewer(
    watched: Watched, report: Report
) -> None:
    watched.insert(*viewing("ada", 0, (0, 10), video_length=None))
    opened = {"video_url": f"{LESSON}/2", "video_title": "Opened", "video_length": None}
    watched.insert(row(0, "initialized", **opened))
    page = report()
    assert "The lesson 1 1 0.2 0.2 not known 0 " in text(page)
    assert "Opened 1 0 0.0 0.0 not known 0 " in text(page)
    assert [] in [video["viewers"] for video in drawn(page)["videos"]]


def test_all_sections_have_a_page_and_an_index(
    watching: Settings,
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DATABASE", watching.clickhouse_database)
    here = Watched(clickhouse, watching.clickhouse_database, section=2001)
    odd = {"section_id": 0, "section": "../<b>R&D</b> 101%"}
    here.insert(*viewing("ada", DAY, (0, 100)))
    here.insert(*(one | odd for one in viewing("ada", 0, (0, 100))))
    folder = tmp_path / "pages"
    assert main(["report", "--all", "-o", str(folder)]) == 0
    # The files' names have a %, which their addresses have to escape.
    name = "..%2F%3Cb%3ER%26D%3C%2Fb%3E%20101%25"
    files = (f"section-{name}.html", "section-2001.html", "index.html")
    paths = [folder / file for file in files]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    assert sorted(folder.iterdir()) == sorted(paths)
    index = paths[-1].read_text(encoding="utf-8")
    assert "<b>" not in index
    assert f'href="section-{name.replace("%", "%25")}.html"' in index
    assert "2001 1 1 1 1 1.7 2024-03-02" in text(paths[-1])


@pytest.mark.ci
@pytest.mark.parametrize("section", [".", "..", "", "章" * 90])
def test_whatever_a_section_is_called_its_file_is_in_the_folder(
    section: str,
    watching: Settings,
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLICKHOUSE_DATABASE", watching.clickhouse_database)
    here = Watched(clickhouse, watching.clickhouse_database)
    odd = {"section_id": 0, "section": section}
    here.insert(*(one | odd for one in viewing("ada", 0, (0, 100))))
    folder = tmp_path / "pages"
    assert main(["report", "--all", "-o", str(folder)]) == 0
    assert list(tmp_path.iterdir()) == [folder]
    (of_section,) = set(folder.iterdir()) - {folder / "index.html"}
    assert drawn(of_section)["videos"][0]["figures"]["viewers"] == "1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--section", "1", "--all"], "not allowed with argument"),
        (["--section", "1", "--since", "yesterday"], "invalid"),
        (["--section", "1", "--hide-below", "-1"], "use 0 or more"),
        (["--section", "1", "--learners", "--hide-below", "5"], "not allowed with argument"),
        ([], "one of the arguments --section --all is required"),
    ],
)
def test_options_that_cannot_be_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["report", "-o", str(tmp_path / "x.html"), *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_written_is_named_and_nothing_stays_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = Section("1", None, None, 0, 0, 0, False, ())
    monkeypatch.setattr("xapi_etl_processor.report.write.read_section", lambda *_, **__: empty)
    (folder := tmp_path / "reports").mkdir()
    file = write(tmp_path, "1")
    for path, named in ((folder, folder), (file / "more.html", file)):
        assert main(["report", "--section", "1", "-o", str(path)]) == 1
        said = capsys.readouterr().err
        assert "cannot write the report" in said
        assert str(named) in said
    assert set(tmp_path.iterdir()) == {file, folder}


def test_missing_views_are_named(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # `settings` has a database without the views, and names it in the environment.
    monkeypatch.setenv("CLICKHOUSE_DATABASE", settings.clickhouse_database)
    assert main(["report", "--section", "1", "-o", str(tmp_path / "x.html")]) == 1
    assert "video_" in capsys.readouterr().err
