"""The command verify: a page for people, JSON for scripts, exit codes for both."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Cli
from tests.support.dirty import NO_BUNDLE, Dirty
from tests.support.samples import BAD_LINE, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands import verify as command

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"


def test_what_is_missing_is_named_with_what_to_do_and_repair_does_it(
    bucket: Bucket, settings: Settings, ask: Ask, cli: Cli
) -> None:
    bucket.put(KEY, video(1), video(2))
    shown = cli("verify", code=1).out
    assert "1 object compared, 1 not all stored" in shown
    assert f"missing    {KEY}" in shown
    assert "the same command with --repair" in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if "://" not in line)
    # JSON is the function's answer.
    body = cli("verify", "--json", "--section", "2001", "--min-age-minutes", "60").json
    assert (body["verify"], body["recent"], body["section_id"]) == (True, 1, 2001)
    assert "1 object repaired: all stored now" in cli("verify", "--repair", "--content").out
    assert "nothing missing" in cli("verify").out
    ask("ALTER TABLE video_events DELETE WHERE source_line = 2 SETTINGS mutations_sync = 2")
    assert "1 unproven" in cli("verify").out
    assert "; line 2\n" in cli("verify", "--content", code=1).out


def test_repeats_versions_and_statements_of_several_objects_are_not_missing(
    on_dirty: Dirty, cli: Cli
) -> None:
    for options in ([], ["--content"]):
        body = cli("verify", "--json", *options, code=1).json
        assert (body["objects_checked"], body["objects_missing"], body["gone"]) == (8, 1, 0)
        [finding] = body["findings"]
        assert (finding["key"], finding["finding"]) == (NO_BUNDLE, "missing")


def test_repair_is_not_advised_for_what_can_never_load(
    bucket: Bucket, settings: Settings, cli: Cli
) -> None:
    bucket.put(NO_BUNDLE, BAD_LINE)
    for advice in ([], ["To load the others: the same command with --repair."]):
        shown = cli("verify", code=1).out
        assert f"cannot be loaded: {bucket.uri(NO_BUNDLE)}: none of its lines" in shown
        assert "`explain` says what it is instead" in shown
        assert [line for line in shown.splitlines() if "--repair" in line] == advice
        bucket.put(KEY, video(1))


@pytest.mark.usefixtures("pauses")
def test_a_wrong_request_and_a_clickhouse_that_is_away_are_told_in_one_line(
    settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    for code, options, said in (
        (2, ["--start", "yesterday"], "start_date is 'yesterday'"),
        (2, ["--replace"], "replace with verify needs"),
        (2, ["--min-age-minutes", "-1"], "min_age_minutes is -1"),
        (1, [], "ClickHouse at 127.0.0.1:1: no connection"),
    ):
        out, err = cli("verify", *options, code=code)
        assert out == ""
        assert said in err.splitlines()[-1]


def test_a_comparison_of_nothing_fails_and_says_what_there_is_as_other_commands_do(
    bucket: Bucket, settings: Settings, cli: Cli
) -> None:
    body = cli("verify", "--json", code=1).json
    assert (body["success"], body["objects_checked"]) == (False, 0)
    assert "the ledger has no objects yet" in body["failures"][0]["error"]
    bucket.put_each(
        KEY,
        # The last day is neither in the last key nor in the last section.
        "section/2001/quiz/2024-03-02T08-00-00Z_2.jsonl",
        "section/BIO101/video/2024-02-01T08-00-00Z_3.jsonl",
    )
    cli("bulk")
    days = "days from 2024-01-01 to 2024-03-02"
    no_section = "no section bio101; nearest: BIO101 (2 in all)"
    for options, said in (
        (["--section", "bio101"], f"{no_section}, and {days}"),
        (["--section", "2001", "--start", "2042-01-01"], days),
        (["--prefix", "section/nowhere/"], "section/nowhere/ has no bundle that was asked for"),
    ):
        shown = " ".join(cli("verify", *options, code=1).out.split())
        assert "0 objects compared, nothing" in shown
        assert "nothing missing" not in shown
        assert said in shown
        cli("verify", *options, "--allow-empty")
    for command_ in ("bulk", "rejects", "status"):
        assert no_section in cli(command_, "--section", "bio101").err, command_


NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        ("objects_checked", "objects_missing", "unproven", "dropped", "recent", "gone"), 0
    ),
    **dict.fromkeys(("repaired", "content", "repair"), False),
    **dict.fromkeys(("success", "complete"), True),
    "findings": [],
    "failures": [],
    "continuation_token": None,
}
FINDING = {"key": KEY, "finding": "recent", "why": "not in the ledger yet"}


def test_what_was_found_is_said_with_what_to_do(
    settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"recent": 3, "findings": [FINDING]}, 0, "2 more findings are not shown"),
        ({"unproven": 3, "findings": [FINDING]}, 0, "2 more findings are not shown"),
        ({"objects_missing": 3, "success": False}, 1, "3 more findings are not shown"),
        ({"gone": 2}, 0, "2 objects in the ledger are no longer in S3"),
        ({"complete": False, "continuation_token": "t"}, 1, "To go on: --token t"),
        ({"complete": False, "continue": True}, 1, "To go on: the same command"),
        ({"objects_checked": 4, "content": True}, 0, "4 objects compared with their content"),
    ]
    for body, code, said in cases:
        monkeypatch.setattr(command, "run_verify", lambda *_, body=body: NOTHING | body)
        shown = " ".join(cli("verify", code=code).out.split())
        assert said in shown
        assert shown.count("more findings") == said.count("more findings")
