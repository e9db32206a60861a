"""Rejected lines: which still count, the whole lines, and loading their objects again."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Cli, Invoke
from tests.support.dirty import ALL, NAMING, NO_BUNDLE, VERSIONS, Dirty
from tests.support.samples import BAD_LINE, video
from xapi_etl_processor.audit import rejected
from xapi_etl_processor.audit.rejected import Chosen, by_reason
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands import rejects as command
from xapi_etl_processor.run import connections
from xapi_etl_processor.xapi import parse
from xapi_etl_processor.xapi.decode import decode

FIRST = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
SECOND = "section/2002/video/2024-01-02T12-00-00Z_2.jsonl"
LONG = b"x" * 10_000


@pytest.fixture
def loaded(bucket: Bucket, invoke: Invoke) -> Bucket:
    """Three rejected lines: 2 and 3 of the first object, 1 of the second."""
    bucket.put(FIRST, video(1), BAD_LINE, LONG)
    bucket.put(SECOND, b'{"verb": 1}', video(2))
    assert invoke({"mode": "bulk"})["rejected_lines"] == 3
    return bucket


def accept(monkeypatch: pytest.MonkeyPatch, accepted: bytes) -> None:
    """A fix: from now on, this line is a video statement."""
    monkeypatch.setattr(
        parse,
        "decode",
        lambda line: decode(json.dumps(video(9)).encode() if line == accepted else line),
    )


def listed(cli: Cli, *options: str) -> list[tuple[str, int]]:
    body = cli("rejects", "--json", *options).json
    assert body["rejected_lines"] == len(body["lines"]) == sum(body["reasons"].values())
    return [(one["source_file"], one["source_line"]) for one in body["lines"]]


def exported(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_rejected_line_that_counts_is_listed_once_page_by_page_as_it_was_chosen(
    on_dirty: Dirty, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = cli("rejects").out
    assert f"{on_dirty.uri(ALL)} line 24\n" in shown
    assert shown.count("UTC  not JSON: invalid character\n") == 3
    assert shown.endswith("\n4 rejected lines\n")
    assert all(len(line) <= 80 for line in shown.splitlines() if "://" not in line)
    first, second = (on_dirty.uri(ALL), 24), (on_dirty.uri(VERSIONS), 3)
    others = [(on_dirty.uri(NO_BUNDLE), n) for n in (1, 2)]
    assert listed(cli, "--section", "02001") == [first, second, *others]
    assert listed(cli, "--section", "1") == []
    assert listed(cli, "--source", on_dirty.uri(NO_BUNDLE)) == others
    assert listed(cli, "--reason", "UTF-8") == [first]
    assert listed(cli, "--reason", "100%s 'of'") == []
    monkeypatch.setattr(rejected, "PAGE_LINES", 1)
    assert listed(cli) == [first, second, *others]
    monkeypatch.setattr(command, "SHOWN_LINES", 2)
    said = "4 rejected lines, the first 2 are shown: --export has all\n"
    assert cli("rejects").out.endswith(said)


@pytest.mark.ci
@pytest.mark.slow
def test_lines_that_are_accepted_now_or_were_replaced_do_not_count_and_those_of_a_failure_do(
    loaded: Bucket, cli: Cli, monkeypatch: pytest.MonkeyPatch, ask: Ask, invoke: Invoke
) -> None:
    with monkeypatch.context() as patch:
        accept(patch, BAD_LINE)
        said = cli("rejects", "--reload").out
    assert "2 of 2 objects loaded again: 3 lines were rejected, 2 are now" in said
    second = (loaded.uri(SECOND), 1)
    assert listed(cli) == [(loaded.uri(FIRST), 3), second]
    assert ask("SELECT count() FROM video_statements") == [[3]]
    # The row is still there: only reading tells that it no longer counts.
    assert ask("SELECT count() FROM rejected_statements FINAL") == [[3]]
    # No line is a statement, so this version does not get into the ledger.
    loaded.put(FIRST, BAD_LINE)
    loaded.put("section/1/new.jsonl", BAD_LINE)
    assert not invoke({"mode": "bulk"})["success"]
    # The lines of the first version count too: that version is the one that is stored.
    of_first = [(loaded.uri(FIRST), line) for line in (1, 3)]
    assert sorted(listed(cli)) == [(loaded.uri("section/1/new.jsonl"), 1), *of_first, second]
    loaded.put(FIRST, video(1), video(3))
    loaded.put("section/1/new.jsonl", video(4))
    assert invoke({"mode": "bulk"})["success"]
    assert listed(cli) == [second]
    # An object that cannot be loaded again is named.
    loaded.client.delete_object(Bucket=loaded.name, Key=SECOND)
    out, err = cli("rejects", "--reload", code=1)
    assert "0 of 1 object loaded again" in out
    assert f"{loaded.uri(SECOND)} does not exist" in err


@pytest.mark.slow
def test_lines_of_a_file_on_this_machine_are_listed_exported_and_loaded_again(
    settings: Settings, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("rejects").out == "no rejected lines\n"
    bundle = tmp_path / "bundle.jsonl"
    bundle.write_bytes(json.dumps(video(1)).encode() + b"\n" + BAD_LINE + b"\n" + LONG + b"\n")
    cli("event", str(bundle))
    cli("rejects", "--export", str(tmp_path / "lines.jsonl"))
    whole = [(one["source_line"], len(one["line"])) for one in exported(tmp_path / "lines.jsonl")]
    assert whole == [(2, len(BAD_LINE)), (3, 10_000)]
    accept(monkeypatch, BAD_LINE)
    cli("rejects", "--reload")
    assert listed(cli) == [(f"file://{bundle}", 3)]


@pytest.mark.slow
def test_an_export_has_the_whole_line_or_what_the_table_keeps_and_says_so(
    loaded: Bucket, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rejected.jsonl"
    cli("rejects", "--export", str(path))
    lines = exported(path)
    assert [one["line"] for one in lines] == [BAD_LINE.decode(), LONG.decode(), '{"verb": 1}']
    assert all(one["whole"] and not one["why"] for one in lines)
    export = ["rejects", "--section", "2001", "--export", str(path)]
    # A line that must not be kept is not exported.
    with monkeypatch.context() as patch:
        learners = "xapi_etl_processor.storage.learners.Learners"
        patch.setattr(f"{learners}.may_keep", lambda _, line: line != BAD_LINE)
        cli(*export)
    withheld, other = exported(path)
    assert (withheld["line"], withheld["whole"]) == (None, False)
    assert other["line"] == LONG.decode()
    loaded.put(FIRST, b"another", b"version", b"of it")
    for said in ("uploaded again", "does not exist"):
        assert "1 of them not whole" in cli(*export).err
        short, long = exported(path)
        assert (short["line"], short["whole"]) == (BAD_LINE.decode(), True)
        assert (long["line"], long["whole"]) == ("x" * 4096, False)
        assert said in long["why"]
        loaded.client.delete_object(Bucket=loaded.name, Key=FIRST)
    assert "cannot write" in cli("rejects", "--export", str(tmp_path / "no" / "folder"), code=1).err


def test_an_export_that_exists_is_written_anew_for_its_owner_alone_and_bytes_in_base64(
    on_dirty: Dirty, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "rejected.jsonl"
    path.write_text("of an earlier export\n")
    path.chmod(0o644)
    cli("rejects", "--export", str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first, *others = exported(path)
    assert base64.b64decode(first["line_base64"]) == NAMING
    assert [one["line"] for one in others] == [BAD_LINE.decode()] * 3
    assert all(one["whole"] for one in (first, *others))


def test_the_example_of_a_reason_is_its_newest_line(settings: Settings, ask: Ask) -> None:
    # There are four reasons, 0 to 3. For each, the newest line is in a different file.
    ask(
        "INSERT INTO rejected_statements (source_file, source_line, reason, rejected_at)"
        " SELECT 's3://b/' || toString(number % 4), number, toString(intDiv(number, 4)),"
        " now64(3) - toIntervalMinute((number % 4 + intDiv(number, 4)) % 4) FROM numbers(16)"
    )
    clickhouse = connections(settings).clickhouse
    found = [(reason, file, line) for reason, _, file, line in by_reason(clickhouse, Chosen())]
    newest = [("0", 0), ("1", 3), ("2", 2), ("3", 1)]
    assert found == [(why, f"s3://b/{file}", 4 * int(why) + file) for why, file in newest]


def test_the_page_has_the_query_that_tells_which_lines_count() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
    assert rejected.CURRENT.format(database="xapi_analytics") in page
