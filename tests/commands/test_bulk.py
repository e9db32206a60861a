"""The command bulk: until all is done, by this process, by the function or through the queue."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.commands.conftest import (
    KEYS,
    Console,
    at_a_terminal,
    kept,
)
from tests.conftest import Ask, Bucket, before_ledger_lookups
from tests.support.backfills import refusing
from tests.support.clocks import Clock
from tests.support.reader import IDS, ids
from tests.support.samples import context, video
from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import RemoteFailed
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.cli import main
from xapi_etl_processor.commands import bulk as command
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.queues import messages

pytestmark = pytest.mark.usefixtures("own_stream", "settings")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    """Press Ctrl-C once, after so many outcomes."""
    monkeypatch.setattr(command, "KEPT_SECONDS", -1)
    original = run_bulk
    left = objects

    def run(request: Any, run_: Any, on_outcome: Any) -> Any:
        def counted(outcome: Outcome, so_far: Any) -> None:
            nonlocal left
            on_outcome(outcome, so_far)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        return original(request, run_, counted)

    monkeypatch.setattr(command, "run_bulk", run)


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_resume_goes_on_where_ctrl_c_has_ended_it(
    ask: Ask, console: Console, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token = read_request({"mode": "bulk", "section_id": 1}, settings).token_after("section/1/")
    for options in ["--dry-run"], ["--token", token], ["--start", "2024-01-01"], []:
        command_line = ["bulk", "--section", "1", *options]
        with monkeypatch.context() as patch:
            interrupt_after(patch, 3)
            assert main(command_line) == 1
        assert "run the same command with --resume to continue" in console.errors()
        (progress,) = kept(tmp_path)
        assert progress["answer"]["files_found"] == 3
        assert main([*command_line, "--resume"]) == 0
        answer = console.answer()
        assert (answer["files_found"], answer["complete"]) == (8, True)
        assert ask(IDS) == ([] if "--dry-run" in options else ids(range(8)))
        assert kept(tmp_path) == []


@pytest.mark.slow
def test_what_failed_before_ctrl_c_is_still_a_failure_after_resume(
    bundles: Bucket, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resume goes on behind it."""
    bundles.put(KEYS[1], body=b"no bundle\n")
    interrupt_after(monkeypatch, 3)
    assert main(["bulk"]) == 1
    assert main(["bulk", "--resume"]) == 1
    answer = console.answer()
    assert (answer["success"], answer["complete"]) == (False, True)
    assert answer["files_processed"] + answer["files_skipped"] == 7
    assert (answer["files_found"], answer["files_failed"]) == (8, 1)
    assert [failure["key"] for failure in answer["failures"]] == [KEYS[1]]


@pytest.mark.slow
@pytest.mark.parametrize("remote_", [False, pytest.param(True, marks=pytest.mark.ci)])
@pytest.mark.usefixtures("bundles")
def test_what_stopped_a_backfill_is_no_failure_once_resume_has_sent_the_rest(
    console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch, remote_: bool
) -> None:
    def invoke(_: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        with redirect_stdout(sys.stderr):
            answer: dict[str, Any] = json.loads(handler(payload)["body"])
        return answer

    monkeypatch.setattr(command, "invoke", invoke)
    monkeypatch.setattr(messages, "MESSAGE_OBJECTS", 3)
    run = ["bulk", "--engine", "queue", "--wait", *(["--function", "f"] * remote_)]
    with monkeypatch.context() as patch:
        refusing(patch, refused=1)
        assert main(run) == 1
    answer = console.answer()
    assert (answer["success"], answer["complete"], answer["files_sent"]) == (False, False, 3)
    assert main([*run, "--resume"]) == 0
    answer = console.answer()
    assert (answer["success"], answer["failures"], answer["files_sent"]) == (True, [], 8)
    assert answer["verified"]["objects_checked"] == 8
    assert "of 8 objects" in console.err


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_without_resume_it_begins_anew_and_says_so(
    ask: Ask, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    assert main(["bulk", "--dry-run"]) == 1
    assert main(["bulk", "--dry-run", "--category", "video", "--resume"]) == 0
    assert "nothing to resume" in (console.answer() and console.err)
    assert main(["bulk", "--dry-run"]) == 0
    assert console.answer()["files_found"] == 8
    assert "starting over, as --resume was not given" in console.err
    # A run that has finished is not loaded again.
    assert main(["bulk", "--force"]) == 0
    console.answer()
    before = ask("SELECT count() FROM video_events")
    assert main(["bulk", "--force", "--resume"]) == 2
    assert "nothing to resume" in console.errors()
    assert ask("SELECT count() FROM video_events") == before


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_the_function_is_asked_until_all_is_done(
    ask: Ask,
    clickhouse: ClickHouseServer,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(common, "PAGE_OBJECTS", 2)
    clock = Clock()

    def take_long() -> None:
        clock.now += 12

    before_ledger_lookups(clickhouse, take_long)
    asked: list[dict[str, Any]] = []

    def invoke(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(dict(payload))
        assert name == "prod-loader"
        if len(asked) == 3:
            raise RemoteFailed("the function prod-loader cannot be invoked: no network")
        with redirect_stdout(sys.stderr):
            answer: dict[str, Any] = json.loads(handler(payload, context(30, clock))["body"])
        return answer

    monkeypatch.setattr(command, "invoke", invoke)
    run = ["bulk", "--section", "1", "--function", "prod-loader"]
    assert main(run) == 1
    assert "no network" in console.errors()
    assert main([*run, "--resume"]) == 0
    answer = console.answer()
    assert (answer["files_found"], answer["video_events_processed"]) == (8, 8)
    assert answer["continuation_token"] is None
    assert ask(IDS) == ids(range(8))
    assert asked[0] == {"mode": "bulk", "section_id": ["1"]}
    assert all(payload.keys() == {"mode", "continuation_token"} for payload in asked[1:])
    assert asked[3] == asked[2]
    assert kept(tmp_path) == []


@pytest.mark.slow
def test_at_a_terminal_any_key_is_shown_as_it_is(
    bucket: Bucket, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich takes brackets for markup, and a terminal the character ESC for a command."""
    at_a_terminal(monkeypatch)
    bucket.put("section/1/video/[/b]\x9b2J.jsonl", video(1))
    assert main(["bulk"]) == 0
    assert console.answer()["files_processed"] == 1
    assert "video/[/b]?2J.jsonl" in console.err


def test_the_function_has_settings_of_its_own_and_needs_none_here(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {
        "s3_bucket": "older",
        "s3_prefix": "lrs/section/",
        "inventory": "s3://lists/older/manifest.json",
    }

    def invoke(_: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        assert payload == {"mode": "bulk", **asked}
        settled = {"success": True, "complete": True, "failures": [], "files_found": 3}
        nothing = dict.fromkeys(("stopped", "stop_reason", "continuation_token"))
        return {**settled, **nothing, "files_failed": 0}

    monkeypatch.setattr(command, "invoke", invoke)
    monkeypatch.delenv("CLICKHOUSE_HOST")
    run = ["bulk", "--function", "f", "--bucket", asked["s3_bucket"]]
    run += ["--prefix", asked["s3_prefix"], "--inventory", asked["inventory"]]
    for here in ("", "another"):
        monkeypatch.setenv("S3_XAPI_BUCKET_NAME", here)
        monkeypatch.setenv("S3_XAPI_PREFIX", here)
        assert main(run) == 0
        assert console.answer()["files_found"] == 3
        assert main([*run, "--engine", "queue", "--wait"]) == 2
        assert "CLICKHOUSE_HOST is not set" in console.errors()


def test_a_request_that_cannot_be_has_exit_code_2(console: Console, tmp_path: Path) -> None:
    for arguments, error in (
        (["--wait"], "--wait needs --engine queue"),
        (["--engine", "queue", "--wait", "--dry-run"], "--wait needs --engine queue"),
        (["--engine", "queue", "--wait"], "BACKFILL_QUEUE_URL is not set"),
        (["--engine", "queue"], "BACKFILL_QUEUE_URL is not set"),
        (["--section", "x/y"], "section_id is 'x/y'"),
        (["--start", "2024-02-01", "--end", "2024-01-31"], "start_date is after end_date"),
        (["--start", ""], "start_date is ''"),
        (["--section", ""], "section_id is ''"),
        (["--inventory", ""], "inventory names no object"),
        (["--token", "x"], "was not issued by this function"),
        (["--inventory", "missing/manifest.json"], "does not exist"),
    ):
        assert main(["bulk", *arguments]) == 2, arguments
        assert error in console.errors()
    assert kept(tmp_path) == []


@pytest.mark.usefixtures("bundles")
def test_what_ends_a_function_half_way_is_told_with_how_to_continue(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = {"success": True, "complete": False, "stopped": "time ran out"}
    pause |= {"stop_reason": "out_of_time", "continuation_token": "t", "failures": []}
    answers: list[Any] = [RemoteFailed("f failed")]

    def invoke(*_: Any) -> dict[str, Any]:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        found: dict[str, Any] = answer
        return found

    assert main(["bulk", "--function", "no-such-function"]) == 1
    assert "the function no-such-function cannot be invoked" in console.errors()
    monkeypatch.setattr(command, "invoke", invoke)
    assert main(["bulk", "--function", "f"]) == 1
    assert console.errors().endswith("f failed\n")
    answers += [pause | {"files_found": 2, "files_failed": 0}, RemoteFailed("f failed")]
    assert main(["bulk", "--function", "f"]) == 1
    assert "f failed: run the same command with --resume to continue" in console.errors()


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_a_progress_that_cannot_be_kept_is_told_once_and_harms_nothing(
    ask: Ask, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        """As in a container whose user has no name."""
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(command, "KEPT_SECONDS", -1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert main(["bulk"]) == 0
    console.answer()
    assert console.err.count("the progress cannot be kept") == 1
    assert ask(IDS) == ids(range(8))
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert main(["bulk", "--dry-run"]) == 0
    assert console.answer()["files_found"] == 8
    assert "the progress cannot be kept" in console.err
    assert "set XDG_STATE_HOME" in console.err
