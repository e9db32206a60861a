"""Learners are forgotten: nothing of them is stored any more, and no load brings them back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Cli, Invoke
from tests.privacy.conftest import (
    KEY,
    LATER,
    MAIL,
    OTHER_PAGE,
    PAGE,
    REJECTED,
    Load,
    by_account,
    users,
)
from tests.support.refusals import refuse
from tests.support.samples import BAD_LINE, notification, other, video
from xapi_etl_processor.privacy import forget as forgetting
from xapi_etl_processor.privacy import learner
from xapi_etl_processor.storage import learners
from xapi_etl_processor.xapi.learners import name_hash

CHANGES = "SELECT command FROM system.mutations WHERE database = currentDatabase()"


def test_rows_and_rejected_lines_are_removed_and_others_stay(
    load: Load, bucket: Bucket, ask: Ask, forget: Cli
) -> None:
    load(by_account(1), by_account(2), by_account(3, "learner-10"), REJECTED)
    load(REJECTED.replace(b"learner-1", b"learner-10"), video(5), key=LATER)
    said = forget("--user", "learner-1")
    answer = said.json
    assert (answer["rows_removed"], answer["rejected_lines_removed"]) == (2, 1)
    assert users(ask) == ["learner-10", "viewer-5"]
    kept = ask("SELECT source_file, source_line, reason != '', line FROM rejected_statements")
    assert sorted((file, number, told, line != "") for file, number, told, line in kept) == [
        (bucket.uri(KEY), 4, 1, False),
        (bucket.uri(LATER), 1, 1, True),
    ]
    assert "--list-objects" in " ".join(answer["left_to_do"])
    assert "learner-1" not in said.out + said.err
    # ClickHouse keeps the text of the last hundred changes of a table.
    assert "DELETE WHERE" in str(ask(CHANGES))
    assert "learner-1" not in str(ask(CHANGES))


def test_a_warm_container_learns_who_is_forgotten_next_on_which_home_page_and_who_is_no_more(
    load: Load, ask: Ask, forget: Cli
) -> None:
    lines = by_account(1), by_account(2, "learner-2"), by_account(3, page=OTHER_PAGE), video(4)
    load(*lines)
    for number, options in enumerate((["learner-1", "--home-page", PAGE], ["learner-2"]), 1):
        assert forget("--user", *options).json["rows_removed"] == 1
        answer = load(*lines, force_reprocess=True)
        assert answer["forgotten_events"] == number
    assert ask("SELECT DISTINCT source_line FROM video_events ORDER BY 1") == [[3], [4]]
    ask("TRUNCATE TABLE forgotten_learners")
    assert load(*lines, force_reprocess=True)["forgotten_events"] == 0
    assert users(ask) == ["learner-1", "learner-1", "learner-2", "viewer-4"]


def test_many_learners_of_a_file_are_forgotten_at_once(
    load: Load, ask: Ask, forget: Cli, tmp_path: Path
) -> None:
    load(
        by_account(1, "Ana, B."),
        by_account(2, "ana", OTHER_PAGE),
        by_account(3, "ana"),
        video(4, actor={"mbox": f"mailto:{MAIL}"}),
        video(5),
    )
    file = tmp_path / "learners.csv"
    file.write_text(
        f'\ufeffuser,home_page,mbox\r\n"Ana, B.",,\r\nana, {PAGE},\r\n,, {MAIL} \r\n', "utf-8"
    )
    assert forget("--file", str(file)).json["rows_removed"] == 3
    assert ask("SELECT user_id, home_page FROM video_events ORDER BY ALL") == [
        ["ana", OTHER_PAGE],
        ["viewer-5", "https://example.org"],
    ]


@pytest.mark.fault(74, caught_by="forgotten learners are checked around each insert")
def test_no_kind_of_reload_brings_a_learner_back(
    load: Load, bucket: Bucket, invoke: Invoke, ask: Ask, forget: Cli
) -> None:
    lines: list[Any] = [by_account(1), by_account(2), video(3), other(4), b"", REJECTED]
    load(*lines)
    forget("--user", "learner-1")
    bucket.put(LATER, *lines)
    event = {"bucket": bucket.name, "key": KEY, "force_reprocess": True}
    for payload in (
        notification(bucket.name, KEY),
        event,
        notification(bucket.name, LATER),
        {"mode": "bulk"},
        {"mode": "bulk", "force_reprocess": True},
        event,
    ):
        invoke(payload)
    assert users(ask) == ["viewer-3"]
    assert ask("SELECT DISTINCT line FROM rejected_statements") == [[""]]
    names = "lines, video, other, blank, rejected, forgotten"
    assert ask(f"SELECT DISTINCT {names} FROM processed_files FINAL WHERE forgotten > 0") == [
        [6, 1, 1, 1, 1, 2]
    ]


@pytest.mark.slow
def test_thousands_are_forgotten_in_changes_that_keeper_takes(
    ask: Ask, clickhouse: ClickHouseServer, forget: Cli, tmp_path: Path
) -> None:
    """ZooKeeper takes 1 MB at most (jute.maxbuffer)."""
    changes: list[int] = []

    def measure(_: str, sql: str) -> None:
        if sql.startswith("ALTER"):
            changes.append(len(sql))

    ask(
        "INSERT INTO video_events (event_id, user_id)"
        " SELECT toString(number), leftPad(toString(number), 4000, 'x') FROM numbers(300)"
    )
    names = [str(number).rjust(4000, "x") for number in range(300)]
    (tmp_path / "learners.csv").write_text("\n".join(["user", *names]))
    clickhouse.hook = measure
    assert forget("--file", str(tmp_path / "learners.csv")).json["rows_removed"] == 300
    assert max(changes) < 1_000_000
    assert ask("SELECT count() FROM video_events") == [[0]]


def test_nobody_is_compared_with_the_list_twice(
    load: Load, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hash for each statement, a load would take half as long again."""
    hashed: list[str] = []

    def counted(text: str, key: bytes) -> str:
        hashed.append(text)
        return name_hash(text, key)

    forget("--user", "learner-1")
    monkeypatch.setattr(learners, "name_hash", counted)
    load(*(by_account(n, f"learner-{n % 3}") for n in range(60)))
    load(*(by_account(n, f"learner-{n % 3}") for n in range(9)), key=LATER)
    assert sorted(hashed) == ["learner-0", "learner-1", "learner-2"]


def test_an_object_with_forgotten_statements_is_a_success_and_the_others_are_right(
    load: Load, ask: Ask, forget: Cli
) -> None:
    forget("--user", "learner-1")
    answer = load(by_account(1), BAD_LINE)
    assert (answer.status, answer["success"], answer["files_processed"]) == (200, True, 1)
    assert (answer["events_processed"], answer["forgotten_events"]) == (0, 1)
    assert users(ask) == []
    # Leaving out a line does not shift the values of those after it.
    lines = [by_account(1), video(8), by_account(3), video(20, result=None), by_account(5)]
    load(*lines, key=LATER)
    assert ask(
        "SELECT user_id, video_time, source_line FROM video_events ORDER BY source_line"
    ) == [
        ["viewer-8", 4.0, 2],  # half of its number
        ["viewer-20", None, 4],
    ]


def test_a_dry_run_counts_each_statement_and_line_once_and_removes_nothing(
    load: Load, ask: Ask, forget: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The lines were loaded twice, and the learners are looked up one at a time. One of them is in
    the table of version 0.1 too.
    """
    lines = by_account(1), by_account(2, page=OTHER_PAGE), by_account(3, "learner-2"), REJECTED
    load(*lines)
    load(*lines, force_reprocess=True)
    ask("CREATE TABLE video_events_old AS video_events")
    ask("INSERT INTO video_events_old SELECT * FROM video_events WHERE source_line = 1")
    file = tmp_path / "learners.csv"
    file.write_text("user\nlearner-1\nlearner-2\n")
    monkeypatch.setattr(learner, "AT_ONCE", 1)
    said = forget("--file", str(file), "--dry-run")
    assert said.json == {
        "user_ids": ["learner-1", "learner-2"],
        "home_pages": [PAGE, OTHER_PAGE],
        "rows_removed": 4,
        "rejected_lines_removed": 1,
        "dry_run": True,
    }
    nothing = "nothing is stored of this learner"
    assert nothing not in said.err
    said = forget("--user", "nobody", "--dry-run")
    assert said.json["rows_removed"] == 0
    assert nothing in said.err
    assert len(users(ask)) == 3
    assert ask("SELECT count() FROM forgotten_learners") == [[0]]


def test_lines_of_hundreds_of_learners_are_found_and_blanked_in_slices(
    load: Load, ask: Ask, forget: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forgetting, "_KEYS", 1)
    names = [f"learner-{number}" for number in range(100, 250)]
    bad = [REJECTED.replace(b"learner-1", names[number].encode()) for number in (0, 149)]
    load(*bad, REJECTED, video(1))
    file = tmp_path / "learners.csv"
    file.write_text("\n".join(["user", *names]))
    assert forget("--file", str(file)).json["rejected_lines_removed"] == 2
    assert ask("SELECT line FROM rejected_statements FINAL ORDER BY source_line") == [
        [""],
        [""],
        [REJECTED.decode()],
    ]


def test_a_sweep_counts_and_then_removes_what_a_backup_brought_back(
    load: Load, ask: Ask, forget: Cli
) -> None:
    """The notes that ask for a sweep stay after a dry run, and go after each sweep."""
    load(by_account(1), by_account(3, "learner-3"), video(2), REJECTED)
    for table in ("video_events", "video_events_old"):
        ask(f"CREATE TABLE backup_of_{table} AS video_events")
        ask(f"INSERT INTO backup_of_{table} SELECT * FROM video_events")
    ask("CREATE TABLE video_events_old AS video_events")
    lines = ask("SELECT line FROM rejected_statements")
    for name in ("learner-1", "learner-3"):
        forget("--user", name)
    for table in ("video_events", "video_events_old"):
        ask(f"INSERT INTO {table} SELECT * FROM backup_of_{table}")
    escaped = lines[0][0].replace("'", "''")
    for seconds in (1, 2):
        ask(
            "INSERT INTO rejected_statements (source_file, line, rejected_at)"
            f" VALUES ('s3://b/k', '{escaped}', now64(3) - {seconds})"
        )
    ask("INSERT INTO load_notes (kind, subject) VALUES ('overtaken', 'forget --sweep')")
    ask("INSERT INTO load_notes (kind, subject) VALUES ('overtaken', 'pseudonymize')")
    ask("INSERT INTO forgotten_learners (again) VALUES (1)")
    removed = {"rows_removed": 4, "rejected_lines_removed": 1}
    waiting = "SELECT subject FROM load_notes ORDER BY subject"
    for _ in range(2):
        assert forget("--sweep", "--dry-run").json == {**removed, "dry_run": True}
        assert ask(waiting) == [["forget --sweep"], ["pseudonymize"]]
    assert forget("--sweep").json == {**removed, "dry_run": False}
    assert "learner-" not in str(ask(CHANGES))
    assert users(ask) == ["viewer-2"]
    assert ask("SELECT count() FROM rejected_statements WHERE line != ''") == [[0]]
    assert ask(waiting) == [["pseudonymize"]]
    assert ask("SELECT countIf(again), count() FROM forgotten_learners") == [[0, 2]]
    nothing = {"rows_removed": 0, "rejected_lines_removed": 0, "dry_run": False}
    assert forget("--sweep").json == nothing


def test_objects_that_hold_more_are_listed_also_those_without_a_video(
    bucket: Bucket, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", bucket.name)
    read_page = {**other(1), "actor": {"account": {"name": "learner-1", "homePage": PAGE}}}
    spelled = json.dumps(read_page).replace("learner-1", "learner\\u002d1").encode()
    bucket.put("section/1/video/a.jsonl", by_account(1), video(2))
    bucket.put("section/1/pages/b.jsonl", spelled)
    bucket.put("section/1/pages/c.jsonl", REJECTED)
    bucket.put("section/1/video/d.jsonl", by_account(1, "learner-10"), video(2), BAD_LINE)
    bucket.put("section/2/video/e.jsonl", by_account(4))
    keys = ["section/1/pages/b.jsonl", "section/1/pages/c.jsonl", "section/1/video/a.jsonl"]
    found = forget("--user", "learner-1", "--list-objects", "--section", "1").out.splitlines()
    assert found == [bucket.uri(key) for key in keys]
    everywhere = forget("--user", "learner-1", "--list-objects").out.splitlines()
    assert everywhere == [*found, bucket.uri("section/2/video/e.jsonl")]
    # Nothing printed must not look like nothing searched.
    out, err = forget("--user", "nobody", "--list-objects")
    assert out == ""
    assert f"0 of 5 bundles under s3://{bucket.name}/section/ hold" in err
    # An object that cannot be read is named, and the command fails.
    bucket.put("section/2/video/a.jsonl", body=b"\x1f\x8b is no gzip")
    out, err = forget("--user", "learner-1", "--list-objects", code=1)
    assert out.splitlines() == everywhere
    assert "section/2/video/a.jsonl" in err


def test_a_wrong_request_or_a_file_that_names_nobody_is_refused_before_anything_is_removed(
    forget: Cli, ask: Ask, tmp_path: Path
) -> None:
    for options, said in (
        (["--user", ""], "an empty user id is no learner"),
        (["--mbox", MAIL, "--home-page", PAGE], "--home-page needs --user"),
        (["--file", "/not/there.csv"], "/not/there.csv cannot be read"),
        (["--sweep", "--list-objects"], "--list-objects needs a learner"),
        (["--user", "a", "--section", "1"], "--section only narrows --list-objects"),
    ):
        assert said in forget(*options, code=2).err
    file = tmp_path / "learners.csv"
    for content, said in (
        ("", "the first line must name the columns"),
        ("learner-1\n", "the first line must name the columns"),
        ("user,email\na,b\n", "the first line must name the columns"),
        ("user\n", "names no learner"),
        ("user,mbox\na,\n,\n", "line 3: a user or an mbox is needed"),
        ("user\na,b\n", "line 2: a user or an mbox is needed"),
        (f"home_page,mbox\n{PAGE},{MAIL}\n", "line 2: a home_page needs a user"),
    ):
        file.write_text(content)
        assert said in forget("--file", str(file), code=2).err
    assert ask("SELECT count() FROM forgotten_learners") == [[0]]


def test_without_the_right_to_delete_the_learner_is_remembered_all_the_same(
    load: Load, ask: Ask, clickhouse: ClickHouseServer, forget: Cli
) -> None:
    load(by_account(1))
    refuse(clickhouse, 497, "^ALTER")
    said = forget("--user", "learner-1", code=1).err
    assert "ALTER TABLE video_events was refused" in said
    clickhouse.hook = lambda *_: None
    assert load(by_account(2), key=LATER)["forgotten_events"] == 1
    assert forget("--user", "learner-1").json["rows_removed"] == 1
    assert users(ask) == []


def test_an_error_that_repeats_the_query_names_no_learner(
    ask: Ask, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ClickHouse's errors about a column end with `In scope SELECT ... IN ('learner-1')`."""
    monkeypatch.setenv("LEARNER_KEY", "0" * 32)
    ask("RENAME TABLE video_events TO kept")
    ask("CREATE TABLE video_events (name String) ENGINE = ReplacingMergeTree ORDER BY name")
    said = forget("--user", "learner-1", "--dry-run", code=1).err
    assert "UNKNOWN_IDENTIFIER" in said
    assert "identifier `user_id`" in said
    assert "learner-1" not in said


def test_forgetting_needs_a_yes_or_at_a_terminal_an_answer_to_what_is_shown(
    load: Load, ask: Ask, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(by_account(1))
    assert "add --yes" in cli("forget", "--user", "learner-1", code=2).err
    for typed, left in (("n\n", ["learner-1"]), ("", ["learner-1"]), ("y\n", [])):
        terminal = io.StringIO(typed)
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", terminal)
        shown = cli("forget", "--user", "learner-1", code=1 if left else 0)
        assert PAGE in shown.out
        assert "forget them?" in shown.err
        assert users(ask) == left
