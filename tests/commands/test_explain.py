"""The command explain: sources, choice of lines, exit codes, and what it prints."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bucket, Cli, forget_connections
from tests.support.rows import VIDEO
from tests.support.samples import BAD_LINE, content, event_id, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands import explain
from xapi_etl_processor.xapi.lines import MIB

Shown = Callable[..., str]
NAME = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
ODD = {"result": {"extensions": {VIDEO + "quality": "hd", "urn:mood": "good"}}}


@pytest.fixture(autouse=True)
def _no_clickhouse(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command needs none. A test that loads too asks for `settings`, which come later."""
    monkeypatch.delenv("CLICKHOUSE_HOST", raising=False)
    monkeypatch.setenv("COLUMNS", "80")


LINES = content(video(1), video(2, **ODD), other(1), b"", BAD_LINE)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(LINES)
    return path


@pytest.fixture
def shown_of(tmp_path: Path, cli: Cli) -> Shown:
    """What is shown of a file with this content."""

    def shown_of(body: bytes, *options: str, name: str = "b.jsonl") -> str:
        (tmp_path / name).write_bytes(body)
        return cli("explain", str(tmp_path / name), *options).out

    return shown_of


def test_a_summary_is_a_check_list_and_says_how_to_see_one_line(
    bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = cli("explain", str(bundle)).out
    assert "5 lines: 2 video, 1 other, 1 blank, 1 rejected" in shown
    assert f"To see one line: python -m xapi_etl_processor explain {bundle} --line 2" in shown
    tables = [line for line in shown.splitlines() if not line.startswith("To see one line")]
    assert max(map(len, tables)) <= 80
    monkeypatch.setenv("COLUMNS", "300")
    rows = [" ".join(line.split()) for line in cli("explain", str(bundle)).out.splitlines()]
    for row in (
        "https://w3id.org/xapi/video/verbs/played 2",
        "none 2",
        "Rejected not JSON: invalid character in line 5",
        "neither object type, verb nor category says that it is about a video"
        " in line 3; first: http://id.tincanapi.com/verb/viewed",
        "quality, from result.video:quality it is not a number of lines, such as 720 or 720p"
        " in line 2; first: hd",
        "result.extensions.urn:mood no column reads it in line 2; first: good",
    ):
        assert row in " ".join(rows)


def test_what_is_no_bundle_is_said_to_fail_as_loading_it_does(
    settings: Settings, tmp_path: Path, cli: Cli
) -> None:
    for name, lines, fails in (("a", (BAD_LINE, b""), True), ("b", (b"",), False)):
        path = tmp_path / name
        path.write_bytes(content(*lines))
        assert ("Loading it fails" in cli("explain", str(path)).out) is fails
        cli("event", str(path), code=int(fails))


def test_one_line_shows_each_column_with_its_origin_and_what_is_left_over_or_why_it_has_no_row(
    bundle: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = cli("explain", str(bundle), "--line", "2").out
    # Words are whole, also where a table would be too wide.
    uri, iri = f"file://{bundle}", "https://w3id.org/xapi/video/verbs/played"
    for text in ("Line 2: video", "viewer-2", "result.video:quality", "urn:mood", "hd", uri, iri):
        assert text in shown
    assert all(len(line) <= 80 or uri in line for line in shown.splitlines())
    monkeypatch.setenv("COLUMNS", "300")
    rows = [
        " ".join(line.split())
        for line in cli("explain", str(bundle), "--line", "1").out.splitlines()
    ]
    for row in (
        "section_id 2001 the column section",
        "section 2001 the object's key",
        "user_id viewer-1 actor.account.name",
    ):
        assert row in rows
    assert not any(row.startswith("quality ") for row in rows)
    for number, fate in (3, "other"), (4, "blank"), (5, "rejected"):
        shown = cli("explain", str(bundle), "--line", str(number)).out
        assert shown.startswith(f"Line {number}: {fate}\nWhy: ")
        assert "Its row" not in shown
    assert shown.endswith(f"\nThe line\n{BAD_LINE.decode()}\n")


def test_an_id_is_found_in_any_spelling_on_every_line_and_also_if_it_was_made(
    bundle: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def lines_of(path: Path, spelling: str) -> list[tuple[int, str]]:
        shown = cli("explain", str(path), "--id", spelling).out
        found = re.findall(r"^Line (\d+): (\w+)$", shown, re.MULTILINE)
        return [(int(number), fate) for number, fate in found]

    plain = event_id(2).replace("-", "")
    for spelling in (plain, event_id(2).upper(), f"{{{event_id(2)}}}", f"urn:uuid:{plain}"):
        assert lines_of(bundle, spelling) == [(2, "video")], spelling
    without = video(9)
    del without["id"]
    path = tmp_path / "b"
    path.write_bytes(content(video(1), without, video(1)))
    assert lines_of(path, event_id(1)) == [(1, "video"), (3, "video")]
    made = re.search(r"event_id\s+(\S+)", cli("explain", str(path), "--line", "2").out)
    assert made
    assert lines_of(path, made[1]) == [(2, "video")]


def test_what_is_not_there_and_what_cannot_be_has_an_exit_code_and_a_word(
    bundle: Path, cli: Cli
) -> None:
    for kind, option, value in (("line", "--line", "6"), ("statement", "--id", event_id(9))):
        out, err = cli("explain", str(bundle), option, value, code=1)
        assert out == ""
        assert f"has no {kind} {value}: " in err
        assert "it has 5 lines" in err
    for number in ("0", "-1", "x", "1.5", "٣", ""):
        assert "lines count from 1" in cli("explain", str(bundle), f"--line={number}", code=2).err
    for source, said in (
        ("gone.jsonl", "cannot be read (No such file or directory)"),
        (".", "is a folder"),
        ("s3://bucket-only", "is not an object"),
        ("https://x/y.jsonl", "is not an object"),
    ):
        assert said in cli("explain", source, code=2).err


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (LINES.decode().encode("utf-16"), "It is UTF-16: write it as UTF-8."),
        (LINES.decode().encode("utf-16-le"), "It is UTF-16: write it as UTF-8."),
        (json.dumps(video(1), indent=2).encode() * 2, "Its JSON is pretty-printed: "),
        (json.dumps([video(1)] * 200, indent=2).encode(), "It is one JSON array: "),
        (json.dumps(video(1)).replace("}", "}\n").encode(), "Its JSON is pretty-printed: "),
    ],
)
def test_a_file_of_another_shape_is_told_so_once_instead_of_the_reason_of_each_line(
    body: bytes, said: str, shown_of: Shown
) -> None:
    shown = shown_of(body)
    assert shown.count(said) == 1
    assert "Loading it fails" in shown
    assert "not JSON" not in shown
    assert said in shown_of(body, "--line", "2")


def test_several_statements_or_a_comma_on_a_line_are_named_with_the_first_lines(
    shown_of: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    one = json.dumps(video(1)).encode()
    body = content(
        video(1), *[one + one] * 108, one + b",", b"\xe9" + one, one + b"\r" + one, one[:-1]
    )
    rows = shown_of(body).splitlines()
    several = "several statements on one line: write each on a line of its own, ended by \\n"
    for why, where in (
        (f" {several}", "in 109 lines: 2, 3, 4 ..."),
        (" a comma follows the statement: leave it out", "in line 110"),
        (" not UTF-8", "in line 111"),
        (" not JSON: Input data was truncated", "in line 113"),
    ):
        assert rows[rows.index(why) + 1].strip() == where
    shown = shown_of(body, "--line", "2")
    assert f"Why: not JSON: trailing characters\n{several}\n" in shown


def test_what_has_no_lines_and_what_s3_passes_over_is_said(shown_of: Shown) -> None:
    for body, said in ((b"", "It is empty: "), (b"\n \n", "It has only blank lines: ")):
        shown = shown_of(body)
        assert f"{said}loading it succeeds, and stores nothing.\n" in shown
        assert "To see one line" not in shown
    passed_over = "Uploads and bulk pass over it: a bundle's name ends in .jsonl or .jsonl.gz.\n"
    for name, is_bundle in (("b.json", False), ("b.gz", False), ("B.JSONL", True)):
        shown = shown_of(LINES, name=name)
        assert (passed_over in shown) is not is_bundle


def test_values_that_the_views_cannot_use_are_named_with_the_reason(
    shown_of: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def sent(**extensions: Any) -> dict[str, Any]:
        named = {VIDEO + name.replace("_", "-"): value for name, value in extensions.items()}
        return video(1, result={"extensions": {VIDEO + "length": 60, **named}})

    body = content(
        sent(time=60.9, played_segments="0[.]61"),
        sent(time=-1),
        sent(time=61.5),
        sent(time_from=90, time_to=-2),
        sent(played_segments="0[.]75[,]80[.]70"),
        sent(played_segments=[[0, 5], ["x", 3]]),
        sent(time=5, played_segments="10[.]"),
        sent(played_segments="-3[.]5[,]0[.]500"),
    )
    text = " ".join(shown_of(body).split())
    none = "it is before the video begins: the views take it for none"
    cut = "it is past the video's end at 60 s, where the views cut it off"
    stretch = "no view can use this stretch:"
    form = "it is not from[.]to in seconds from 0"
    past = "it ends past twice the video's length"
    columns = {
        "time": "video_time",
        "time-from": "video_seek_from",
        "time-to": "video_seek_to",
        "played-segments": "video_played_segments",
    }
    for name, why, line, value in (
        ("time", none, 2, "-1.0"),
        ("time", cut, 3, "61.5"),
        ("time-from", cut, 4, "90.0"),
        ("time-to", none, 4, "-2.0"),
        ("played-segments", cut, 5, "0[.]75"),
        ("played-segments", f"{stretch} reversed (it ends before it begins)", 5, "80[.]70"),
        ("played-segments", "it is no pair of seconds", 6, '["x", 3]'),
        ("played-segments", f"{stretch} open (its end is not known)", 7, "10[.]"),
        ("played-segments", f"{stretch} not understood ({form})", 8, "-3[.]5"),
        ("played-segments", f"{stretch} past the length ({past})", 8, "0[.]500"),
    ):
        where = f"{columns[name]}, from result.video:{name}"
        assert f"{where} {why} in line {line}; first: {value}" in text
    assert text.count("first: ") == 10


def test_a_rejected_line_is_found_by_the_text_of_the_id_and_shown_within_bounds(
    tmp_path: Path, shown_of: Shown, cli: Cli
) -> None:
    path = tmp_path / "b.jsonl"
    line = f'{{"id": "{event_id(7).upper()}", "x": "{"y" * 2000}'.encode()
    shown = shown_of(content(video(1), BAD_LINE, line), "--id", event_id(7))
    assert shown.startswith("Line 3: rejected\n")
    assert f"The line, without its other {len(line) - 1000:,} bytes\n" in shown
    assert shown.endswith(f"\n{line[:1000].decode()}\n")
    said = f"has no statement {event_id(8)}: it has 3 lines; of 2 rejected, only the text could be"
    assert said in cli("explain", str(path), "--id", event_id(8), code=1).err


def test_a_rejected_line_of_a_forgotten_learner_is_not_shown_where_clickhouse_can_tell(
    settings: Settings,
    tmp_path: Path,
    shown_of: Shown,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    pauses: list[float],
) -> None:
    cli("forget", "--user", "viewer-7", "--yes")
    forget_connections()
    body = content(b'{"actor": "viewer-7"', b'{"actor": "viewer-8"')
    shown = shown_of(body, "--line", "1")
    assert shown.endswith("The line is not shown: it names a learner who was forgotten\n")
    assert "viewer-7" not in shown
    assert "viewer-8" in shown_of(body, "--line", "2")
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    shown = shown_of(body, "--line", "2")
    assert "whether it names a forgotten learner cannot be asked (" in shown
    assert "viewer-8" not in shown
    monkeypatch.delenv("CLICKHOUSE_HOST")
    assert "viewer-7" in shown_of(body, "--line", "1")


def test_gzip_and_standard_input_are_read_as_loading_reads_them(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    packed = cli("explain", str(tmp_path / "b.jsonl.gz")).out
    assert packed.startswith("5 lines: 2 video")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(LINES))))
    assert cli("explain", "-").out == packed.replace(str(tmp_path / "b.jsonl.gz"), "-")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(LINES)[:-9])
    assert "gzip stream is cut short" in cli("explain", str(tmp_path / "cut.gz"), code=1).err


def test_an_object_is_read_from_s3(bucket: Bucket, cli: Cli) -> None:
    bucket.put(NAME, body=LINES)
    found = cli("explain", bucket.uri(NAME), "--line", "1").out
    assert re.search(r"^ section   value: 2001 ", found, re.MULTILINE)
    version = re.search(r"row_version   value: (\d+)", found)
    assert version
    assert int(version[1]) > 1_700_000_000_000
    assert "does not exist" in cli("explain", bucket.uri("gone.jsonl"), code=1).err


def test_what_statements_hold_cannot_steer_the_terminal(tmp_path: Path, cli: Cli) -> None:
    evil = "\x1b[2J\x9b31m\u202e\x07"
    statement = video(1, actor={"mbox": f"mailto:{evil}"}, context={"extensions": {evil: evil}})
    path = tmp_path / "b.jsonl"
    path.write_bytes(content(statement, video(2, verb={"id": evil})))
    for more in (["--line", "1"], []):
        shown = cli("explain", str(path), *more).out
        assert not set(evil) & set(shown) - set("[2J31m")
        assert "1b" in shown


def test_a_line_that_is_too_long_by_the_settings_is_rejected(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "MAX_LINE_BYTES", MIB)
    (tmp_path / "b").write_bytes(content(video(1, more="x" * 1024**2)))
    assert (
        "Why: line is longer than 1048576 bytes"
        in cli("explain", str(tmp_path / "b"), "--line", "1").out
    )
