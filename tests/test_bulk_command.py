"""The command bulk: until all is done, by this process, by the function or through the queue."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.backfills import refusing
from tests.clocks import Clock
from tests.conftest import Ask, Bucket, before_ledger_lookups
from tests.reader import IDS, ids
from tests.samples import context, video
from tests.simulated_queue import MINUTE, SimulatedQueue, simulated_backfill
from xapi_etl_processor import common
from xapi_etl_processor.cli import main
from xapi_etl_processor.commands import bulk as command
from xapi_etl_processor.commands import remote, unfinished, wait
from xapi_etl_processor.commands.rounds import added, complete, without_stop
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import BadRequest, ClickHouseUnavailable, RemoteFailed
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.modes.bulk_request import read_request
from xapi_etl_processor.modes.loaded import loaded
from xapi_etl_processor.run import Outcome
from xapi_etl_processor.sources import messages

pytestmark = pytest.mark.usefixtures("own_stream")

KEYS = [f"section/1/video/2024-01-01T12-00-{n:02}Z_1.jsonl" for n in range(8)]


class Console:
    """What a command has printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def answer(self) -> dict[str, Any]:
        """The answer that was printed since the last call."""
        out, self.err = self._capsys.readouterr()
        found: dict[str, Any] = json.loads(out)
        return found

    def errors(self) -> str:
        """What was said since the last call, where no answer was printed."""
        out, self.err = self._capsys.readouterr()
        return self.err if not out else f"an answer: {out}"


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def bundles(bucket: Bucket, settings: Settings) -> Bucket:
    for number, key in enumerate(KEYS):
        bucket.put(key, video(number))
    return bucket


@pytest.fixture
def backfill(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SimulatedQueue:
    """The backfill queue. A minute passes each time the command has looked at it."""
    queue = simulated_backfill(settings, monkeypatch)
    monkeypatch.setattr(wait, "EMPTY_SECONDS", 0)

    def run_a_minute(_: float) -> None:
        # The function prints its metrics.
        with redirect_stdout(sys.stderr):
            queue.run_until(queue.now + MINUTE)

    monkeypatch.setattr(wait, "sleep", run_a_minute)
    return queue


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    """What is kept of commands that are not finished."""
    return [json.loads(path.read_text()) for path in tmp_path.rglob("bulk-*.json")]


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
@pytest.mark.parametrize("options", [["--dry-run"], ["--start", "2024-01-01"], []])
def test_resume_goes_on_where_ctrl_c_has_ended_it(
    bundles: Bucket,
    ask: Ask,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
) -> None:
    interrupt_after(monkeypatch, 3)
    assert main(["bulk", "--section", "1", *options]) == 1
    assert "the same command with --resume goes on from here" in console.errors()
    (progress,) = kept(tmp_path)
    assert progress["answer"]["files_found"] == 3
    assert main(["bulk", "--section", "1", *options, "--resume"]) == 0
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
@pytest.mark.parametrize("remote_", [False, True])
def test_what_stopped_a_backfill_is_no_failure_once_resume_has_sent_the_rest(
    bundles: Bucket,
    console: Console,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    remote_: bool,
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
def test_without_resume_it_begins_anew_and_says_so(
    bundles: Bucket, ask: Ask, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(monkeypatch, 3)
    assert main(["bulk", "--dry-run"]) == 1
    assert main(["bulk", "--dry-run", "--category", "video", "--resume"]) == 0
    assert "there is nothing to resume" in (console.answer() and console.err)
    assert main(["bulk", "--dry-run"]) == 0
    assert console.answer()["files_found"] == 8
    assert "begins anew, as --resume is not given" in console.err


@pytest.mark.slow
def test_the_function_is_asked_until_all_is_done(
    bundles: Bucket,
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
def test_a_backfill_is_waited_for_and_verified(
    bundles: Bucket, ask: Ask, console: Console, backfill: SimulatedQueue, tmp_path: Path
) -> None:
    assert main(["bulk", "--engine", "queue", "--start", "2024-01-01", "--wait"]) == 0
    answer = console.answer()
    assert (answer["success"], answer["files_sent"], answer["dead_letters"]) == (True, 8, 0)
    verified = answer["verified"]
    assert (verified["objects_checked"], verified["objects_missing"]) == (8, 0)
    assert "0 of 8 objects, 0 statements, 1 messages left" in console.err
    assert ask(IDS) == ids(range(8))
    assert kept(tmp_path) == []


@pytest.mark.slow
def test_what_the_queue_has_lost_is_found_by_waiting(
    bundles: Bucket, console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_: float) -> None:
        backfill.sqs.purge_queue(QueueUrl=backfill.url)

    monkeypatch.setattr(wait, "sleep", lose)
    assert main(["bulk", "--engine", "queue", "--wait"]) == 1
    answer = console.answer()
    assert (answer["success"], answer["verified"]["objects_missing"]) == (False, 8)


@pytest.mark.slow
def test_resume_waits_on_without_sending_again(
    bundles: Bucket,
    ask: Ask,
    console: Console,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:

    def press_ctrl_c(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_first:
        at_first.setattr(wait, "sleep", press_ctrl_c)
        command_line = ["bulk", "--engine", "queue", "--wait"]
        assert main(command_line) == 1
    assert kept(tmp_path)[0]["sent"] is True
    monkeypatch.setattr(command, "run_bulk", None)
    assert main([*command_line, "--resume"]) == 0
    answer = console.answer()
    assert (answer["files_sent"], answer["verified"]["objects_checked"]) == (8, 8)
    assert ask(IDS) == ids(range(8))
    assert len(backfill.deliveries) == 1


@pytest.mark.slow
def test_waiting_goes_on_while_clickhouse_is_away(
    bundles: Bucket,
    console: Console,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = iter([True, True])

    def away_at_first(*arguments: Any) -> Any:
        if next(failing, False):
            raise ClickHouseUnavailable("ClickHouse does not answer")
        return loaded(*arguments)

    monkeypatch.setattr(wait, "loaded", away_at_first)
    assert main(["bulk", "--engine", "queue", "--wait"]) == 0
    assert "ClickHouse does not answer" in (console.answer() and console.err)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--wait"], "--wait needs --engine queue"),
        (["--engine", "queue", "--wait", "--dry-run"], "--wait needs --engine queue"),
        (["--engine", "queue", "--wait"], "BACKFILL_QUEUE_URL is not set"),
        (["--engine", "queue"], "BACKFILL_QUEUE_URL is not set"),
        (["--start", "2024-02-01", "--end", "2024-01-31"], "start_date is after end_date"),
        (["--start", ""], "start_date is ''"),
        (["--section", ""], "section_id is ''"),
        (["--inventory", ""], "inventory names no object"),
        (["--token", "x"], "was not issued by this function"),
        (["--inventory", "missing/manifest.json"], "does not exist"),
    ],
)
def test_a_request_that_cannot_be_has_exit_code_2(
    settings: Settings, console: Console, tmp_path: Path, arguments: list[str], error: str
) -> None:
    assert main(["bulk", *arguments]) == 2
    assert error in console.errors()
    assert kept(tmp_path) == []


def test_a_token_and_resume_are_refused_together(settings: Settings, console: Console) -> None:
    token = read_request({"mode": "bulk"}, settings).token_after("section/1/a.jsonl")
    assert main(["bulk", "--token", token, "--resume"]) == 2
    assert "--resume does not go with --token" in console.errors()


@pytest.mark.slow
def test_a_progress_that_cannot_be_kept_is_told_and_harms_nothing(
    bundles: Bucket, ask: Ask, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert main(["bulk"]) == 0
    assert "the progress cannot be kept" in (console.answer() and console.err)
    assert ask(IDS) == ids(range(8))


@pytest.mark.slow
def test_a_progress_that_cannot_be_kept_is_told_once(
    bundles: Bucket, console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(command, "KEPT_SECONDS", -1)
    assert main(["bulk", "--dry-run"]) == 0
    console.answer()
    assert console.err.count("the progress cannot be kept") == 1


@pytest.mark.slow
def test_without_a_home_the_progress_is_not_kept(
    bundles: Bucket, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose user has no name."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert main(["bulk", "--dry-run"]) == 0
    assert console.answer()["files_found"] == 8
    assert "the progress cannot be kept" in console.err
    assert "set XDG_STATE_HOME" in console.err


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"started": "x"}', '{"started": 1, "sent": true}', '{"started": 1, "answer": 3}'],
)
def test_a_damaged_progress_is_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bulk.json"
    path.write_text(text)
    assert unfinished.read(path) is None


def test_rounds_go_on_after_an_object_that_was_begun_when_the_time_ran_out() -> None:
    answers = iter(
        {"stopped": text, "continuation_token": text}
        for text in ("time ran out", "s3://b/k: time ran out at line 7: give it more", None)
    )
    asked = []

    def ask(payload: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(payload.get("continuation_token"))
        return next(answers)

    assert complete({}, ask, lambda _: None)["stopped"] is None
    assert asked == [None, "time ran out", "s3://b/k: time ran out at line 7: give it more"]


def test_what_is_tried_again_is_not_counted_yet() -> None:
    """Of 7 objects, one is no bundle, and 3 were not stored."""
    failed = [{"key": str(n), "error": "no server"} for n in range(3)]
    bad = {"key": "x", "error": "x is broken"}
    total = {
        "success": False,
        "stopped": "no server",
        "failures": [bad, *failed],
        "files_found": 7,
        "files_failed": 4,
    }
    expected = {**total, "failures": [bad], "files_found": 4, "files_failed": 1}
    assert without_stop(total) == expected
    assert without_stop({**total, "failures": failed, "files_failed": 3})["success"] is True


def test_answers_are_added_up() -> None:
    first = {
        "success": False,
        "files_found": 3,
        "estimated_minutes": 0.5,
        "section_id": 1,
        "failures": [{"key": str(n)} for n in range(15)],
        "complete": False,
        "continuation_token": "a",
    }
    second = {
        "success": True,
        "files_found": 4,
        "estimated_minutes": 0.25,
        "section_id": 1,
        "failures": [{"key": str(n)} for n in range(15, 30)],
        "complete": True,
        "continuation_token": None,
    }
    assert added(first, second) == {
        "success": False,
        "files_found": 7,
        "estimated_minutes": 0.75,
        "section_id": 1,
        "failures": [{"key": str(n)} for n in range(20)],
        "complete": True,
        "continuation_token": None,
    }
    assert added({}, first) == first


class Function:
    """Lambda's client for a function that answers this."""

    def __init__(self, answer: Any, **more: Any) -> None:
        self.reply = {"Payload": io.BytesIO(json.dumps(answer).encode()), **more}

    def invoke(self, **_: Any) -> dict[str, Any]:
        return self.reply


@pytest.mark.parametrize(
    ("function", "error", "text"),
    [
        (
            Function({"errorMessage": "bulk: time ran out"}, FunctionError="Unhandled"),
            RemoteFailed,
            "the function f failed: bulk: time ran out",
        ),
        (Function(None, FunctionError="Unhandled"), RemoteFailed, "see its log"),
        (Function({"batchItemFailures": []}), RemoteFailed, "see its log"),
        (Function(None), RemoteFailed, "see its log"),
        (Function([]), RemoteFailed, "see its log"),
        (Function({"statusCode": 200, "body": "hello"}), RemoteFailed, "another function"),
        (Function({"statusCode": 200, "body": '{"success": true}'}), RemoteFailed, "another"),
        (
            Function({"statusCode": 400, "body": json.dumps({"error": "engine is 7"})}),
            BadRequest,
            "the function f refuses this: engine is 7",
        ),
    ],
)
def test_a_function_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, function: Function, error: type[Exception], text: str
) -> None:
    monkeypatch.setattr(boto3, "client", lambda *_, **__: function)
    with pytest.raises(error, match=text):
        remote.invoke("f", {"mode": "bulk"})


def test_a_function_that_is_not_there_is_told(settings: Settings, console: Console) -> None:
    assert main(["bulk", "--function", "no-such-function"]) == 1
    assert "the function no-such-function cannot be invoked" in console.errors()


def test_a_functions_answer_is_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"success": True, "stopped": None}
    function = Function({"statusCode": 200, "body": json.dumps(body)})
    monkeypatch.setattr(boto3, "client", lambda *_, **__: function)
    assert remote.invoke("f", {}) == body
