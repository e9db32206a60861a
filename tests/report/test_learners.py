"""Who is in a section: each person counts once, a roster names who never came, and the progress of
each is a line for a spreadsheet.
"""

from __future__ import annotations

import csv
import stat
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.support.reports import LESSON, Report, drawn, text, viewing
from tests.support.watched import Watched, row
from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.report.learners import Learner, progress, read_roster

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_stream")]

PAGE = "https://lms.example.edu"
OTHER = "https://videos.example.edu/other"
ROSTER = '\ufeffUser ID,Name\nada,"Lovelace, Ada"\n\ncy@example.edu\ngrace, Grace \n'


@pytest.fixture
def people(watched: Watched) -> Watched:
    """Ada finished both videos, Bob played 10 of 100 seconds of one, and Cy only opened it."""
    other = {"video_url": OTHER, "video_title": "=1+1", "video_length": 50}
    watched.insert(*viewing("ada", 0, (0, 100)), *viewing("ada", 200, (0, 50), **other))
    watched.insert(*viewing("bob", 0, (0, 10)))
    cy = {"video_url": LESSON, "user_id": "mailto:cy@example.edu", "session_id": "c"}
    watched.insert(row(5, "initialized", video_length=100, **cy))
    return watched


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    """Ada; Cy, whose name is not known; and Grace, who never came."""
    (path := tmp_path / "roster.csv").write_text(ROSTER, encoding="utf-8")
    return path


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def test_who_opened_played_and_finished_counts_once_in_a_section(
    people: Watched, report: Report
) -> None:
    assert "opened 3 played 2 finished 1 sessions 4 " in text(report())


def test_a_roster_names_people_and_adds_who_never_came_to_who_has_not_watched(
    people: Watched, report: Report, roster: Path
) -> None:
    page = report("--roster", str(roster))
    assert "1 of the roster opened no video: Grace, grace ." in text(page)
    data = drawn(page)
    names = [[data["learners"][n] for n in v["not_watched_by"]] for v in data["videos"]]
    bob, cy = f"bob ({PAGE})", f"mailto:cy@example.edu ({PAGE})"
    assert names == [[cy, "Grace, grace"], [bob, cy, "Grace, grace"]]
    assert f"Lovelace, Ada, ada ({PAGE})" in data["learners"]


def test_progress_is_a_line_for_each_learner_that_only_the_user_can_read(
    people: Watched, report: Report, roster: Path, tmp_path: Path
) -> None:
    path = tmp_path / "progress.csv"
    path.touch(0o644)
    report("--roster", str(roster), "--progress", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # Bob watched 10 seconds, a sixth of a minute; Ada 100 and 50, which is 2.5 minutes.
    assert rows(path) == [
        [
            *("user_id", "home_page", "name", "opened", "played", "finished", "minutes_watched"),
            *("last_seen", "The lesson", "'=1+1"),
        ],
        ["ada", PAGE, "Lovelace, Ada", "2", "2", "2", "2.5", "2024-03-01", "1.000", "1.000"],
        ["bob", PAGE, "", "1", "1", "0", "0.2", "2024-03-01", "0.100", "0.000"],
        ["mailto:cy@example.edu", PAGE, "", "1", "0", "0", "0.0", "2024-03-01", "0.000", "0.000"],
        ["grace", "", "Grace", "0", "0", "0", "0.0", "", "0.000", "0.000"],
    ]


def test_progress_alone_names_nobody_on_the_page(
    people: Watched, report: Report, tmp_path: Path
) -> None:
    page = report("--progress", str(tmp_path / "progress.csv"), "--time-zone", "America/New_York")
    assert drawn(page)["learners"] == []
    assert "bob" not in page.read_text(encoding="utf-8")
    shown = rows(tmp_path / "progress.csv")
    assert [(line[0], line[7]) for line in shown[1:3]] == [
        ("ada", "2024-02-29"),
        ("bob", "2024-02-29"),
    ]


def test_a_share_that_is_not_known_and_a_time_that_is_not_known_are_left_empty() -> None:
    who = Learner(PAGE, "-ada", shares={LESSON: None})
    written = progress([who], {LESSON: "The lesson"})
    assert written.splitlines()[1] == f"'-ada,{PAGE},,1,0,0,0.0,,"


def test_a_line_break_in_an_id_begins_no_cell_that_a_spreadsheet_takes_for_a_formula() -> None:
    written = progress([Learner(PAGE, "ada\r=1+1")], {})
    assert written.endswith(f'\r\n"ada\r=1+1",{PAGE},,0,0,0,0.0,\r\n')


def test_progress_to_a_folder_fails_and_leaves_the_folder_as_it_is(
    people: Watched, report_settings: None, tmp_path: Path, cli: Cli
) -> None:
    (folder := tmp_path / "folder").mkdir(0o755)
    section = ("--section", str(people.section), "-o", str(tmp_path / "report.html"))
    cli("report", *section, "--progress", str(folder), code=1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_a_roster_of_which_nobody_came_may_have_ids_of_another_system(
    people: Watched, report: Report, roster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "nobody on the roster opened a video: its ids may be those of another system"
    report("--roster", str(roster))
    assert said not in capsys.readouterr().err
    roster.write_text("4711\n4712\n")
    report("--roster", str(roster))
    assert said in capsys.readouterr().err


def test_a_roster_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "roster"
    said = rf"{missing} cannot be read \(No such file or directory\): name a file of user ids"
    with pytest.raises(BadRequest, match=said):
        read_roster(missing)


@pytest.mark.parametrize(
    "content",
    [
        'user_id;name\nada;"Lovelace; Ada"\ngrace;Grace\n',
        'user_id, name\nada, "Lovelace; Ada"\ngrace, Grace\n',
    ],
)
def test_a_roster_may_have_semicolons_as_some_spreadsheets_write_them_or_blanks(
    content: str, tmp_path: Path
) -> None:
    (path := tmp_path / "roster").write_text(content)
    assert read_roster(path) == {"ada": "Lovelace; Ada", "grace": "Grace"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        *((b"", "has no user ids"), (b"user_id\n", "has no"), (b"\xff", "not UTF-8")),
        # The quote would swallow Bob.
        *((b'ada,"Ada\nbob,Bob\n', "not CSV"), (b'ada,"' + b"a" * 200_000, "not CSV")),
    ],
)
def test_a_roster_without_people_or_with_an_open_quote_is_refused(
    content: bytes, said: str, tmp_path: Path
) -> None:
    (path := tmp_path / "roster").write_bytes(content)
    with pytest.raises(BadRequest, match=said):
        read_roster(path)
