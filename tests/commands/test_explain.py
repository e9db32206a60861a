"""The command explain: sources, choice of lines, exit codes, and what it prints."""

from __future__ import annotations

import gzip
import io
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Bucket
from tests.support.rows import VIDEO
from tests.support.samples import BAD_LINE, content, event_id, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.cli import main
from xapi_etl_processor.commands import explain
from xapi_etl_processor.xapi.lines import MIB

Printed = pytest.CaptureFixture[str]
NAME = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
ODD = {"result": {"extensions": {VIDEO + "quality": "hd", "urn:mood": "good"}}}


@pytest.fixture(autouse=True)
def _no_clickhouse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command needs none; and the log's stream, which it redirects, is restored.

    A test that loads too asks for `settings`, which come later.
    """
    monkeypatch.setattr(logger.handlers[0], "stream", sys.stderr)
    monkeypatch.delenv("CLICKHOUSE_HOST", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


LINES = content(video(1), video(2, **ODD), other(1), b"", BAD_LINE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(LINES)
    return path


def lines_shown(capsys: Printed) -> list[tuple[int, str]]:
    """The lines that were explained: their numbers, and what they become."""
    found = re.findall(r"^Line (\d+): (\w+)$", capsys.readouterr().out, re.MULTILINE)
    return [(int(number), fate) for number, fate in found]


def test_a_summary_is_a_check_list_and_says_how_to_see_one_line(
    bundle: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "5 lines: 2 video, 1 other, 1 blank, 1 rejected" in shown
    assert f"To see one line: python -m xapi_etl_processor explain {bundle} --line 2" in shown
    tables = [line for line in shown.splitlines() if not line.startswith("To see one line")]
    assert max(map(len, tables)) <= 80
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["explain", str(bundle)]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in (
        "https://w3id.org/xapi/video/verbs/played 2",
        "none 2",
        "not JSON: invalid character 1 5",
        "neither object type, verb nor category says that it is about a video"
        " http://id.tincanapi.com/verb/viewed 1 3",
        "quality result.video:quality it is not a number of lines, such as 720 or 720p hd 1 2",
        "result.extensions.urn:mood no column reads it good 1 2",
    ):
        assert row in rows


def test_what_is_no_bundle_is_said_to_fail_as_loading_it_does(
    settings: Settings, tmp_path: Path, capsys: Printed
) -> None:
    for name, lines, fails in (("a", (BAD_LINE, b""), True), ("b", (b"",), False)):
        path = tmp_path / name
        path.write_bytes(content(*lines))
        assert main(["explain", str(path)]) == 0
        assert ("Loading it fails" in capsys.readouterr().out) is fails
        assert main(["event", str(path)]) == int(fails)
        capsys.readouterr()


def test_one_line_shows_each_column_with_its_origin_and_what_is_left_over_or_why_it_has_no_row(
    bundle: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", str(bundle), "--line", "2"]) == 0
    shown = capsys.readouterr().out
    # Words are whole, also where a table would be too wide.
    uri, iri = f"file://{bundle}", "https://w3id.org/xapi/video/verbs/played"
    for text in ("Line 2: video", "viewer-2", "result.video:quality", "urn:mood", "hd", uri, iri):
        assert text in shown
    assert all(len(line) <= 80 or uri in line for line in shown.splitlines())
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["explain", str(bundle), "--line", "1"]) == 0
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in (
        "section_id 2001 the column section",
        "section 2001 the object's key",
        "user_id viewer-1 actor.account.name",
    ):
        assert row in rows
    assert not any(row.startswith("quality ") for row in rows)
    for number, fate in (3, "other"), (4, "blank"), (5, "rejected"):
        assert main(["explain", str(bundle), "--line", str(number)]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith(f"Line {number}: {fate}\nWhy: ")
        assert "Its row" not in shown


def test_an_id_is_found_in_any_spelling_on_every_line_and_also_if_it_was_made(
    bundle: Path, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def lines_of(path: Path, spelling: str) -> list[tuple[int, str]]:
        assert main(["explain", str(path), "--id", spelling]) == 0
        return lines_shown(capsys)

    plain = event_id(2).replace("-", "")
    for spelling in (plain, event_id(2).upper(), f"{{{event_id(2)}}}", f"urn:uuid:{plain}"):
        assert lines_of(bundle, spelling) == [(2, "video")], spelling
    without = video(9)
    del without["id"]
    path = tmp_path / "b"
    path.write_bytes(content(video(1), without, video(1)))
    assert lines_of(path, event_id(1)) == [(1, "video"), (3, "video")]
    assert main(["explain", str(path), "--line", "2"]) == 0
    made = re.search(r"event_id\s+(\S+)", capsys.readouterr().out)
    assert made
    assert lines_of(path, made[1]) == [(2, "video")]


def test_what_is_not_there_and_what_cannot_be_has_an_exit_code_and_a_word(
    bundle: Path, capsys: Printed
) -> None:
    for kind, option, value in (("line", "--line", "6"), ("statement", "--id", event_id(9))):
        assert main(["explain", str(bundle), option, value]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert f"has no {kind} {value}: " in err
        assert "it has 5 lines" in err
    for number in ("0", "-1", "x", "1.5", "٣", ""):
        with pytest.raises(SystemExit) as ended:
            main(["explain", str(bundle), f"--line={number}"])
        assert ended.value.code == 2
        assert "lines count from 1" in capsys.readouterr().err
    for source, said in (
        ("gone.jsonl", "cannot be read (No such file or directory)"),
        (".", "is a folder"),
        ("s3://bucket-only", "is not an object"),
        ("https://x/y.jsonl", "is not an object"),
    ):
        assert main(["explain", source]) == 2
        assert said in capsys.readouterr().err


def test_gzip_and_standard_input_are_read_as_loading_reads_them(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    assert main(["explain", str(tmp_path / "b.jsonl.gz")]) == 0
    packed = capsys.readouterr().out
    assert packed.startswith("5 lines: 2 video")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(LINES))))
    assert main(["explain", "-"]) == 0
    assert capsys.readouterr().out == packed.replace(str(tmp_path / "b.jsonl.gz"), "-")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINES)[:-9])
    assert main(["explain", str(tmp_path / "cut.gz")]) == 1
    assert "gzip stream is cut short" in capsys.readouterr().err


def test_an_object_is_read_from_s3(bucket: Bucket, capsys: Printed) -> None:
    bucket.put(NAME, body=LINES)
    assert main(["explain", bucket.uri(NAME), "--line", "1"]) == 0
    found = capsys.readouterr().out
    assert re.search(r"^ section   value: 2001 ", found, re.MULTILINE)
    version = re.search(r"row_version   value: (\d+)", found)
    assert version
    assert int(version[1]) > 1_700_000_000_000
    assert main(["explain", bucket.uri("gone.jsonl")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_what_statements_hold_cannot_steer_the_terminal(tmp_path: Path, capsys: Printed) -> None:
    evil = "\x1b[2J\x9b31m\u202e\x07"
    statement = video(1, actor={"mbox": f"mailto:{evil}"}, context={"extensions": {evil: evil}})
    path = tmp_path / "b.jsonl"
    path.write_bytes(content(statement, video(2, verb={"id": evil})))
    for more in (["--line", "1"], []):
        assert main(["explain", str(path), *more]) == 0
        shown = capsys.readouterr().out
        assert not set(evil) & set(shown) - set("[2J31m")
        assert "1b" in shown


def test_a_line_that_is_too_long_by_the_settings_is_rejected(
    tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "MAX_LINE_BYTES", MIB)
    (tmp_path / "b").write_bytes(content(video(1, more="x" * 1024**2)))
    assert main(["explain", str(tmp_path / "b"), "--line", "1"]) == 0
    assert "Why: line is longer than 1048576 bytes" in capsys.readouterr().out
