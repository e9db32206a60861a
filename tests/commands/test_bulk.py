"""The command bulk: until all is done, by this process, by the function or through the queue."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Cli, Said, before_ledger_lookups
from tests.support.backfills import refusing
from tests.support.clocks import Clock
from tests.support.reader import IDS, ids
from tests.support.samples import context
from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import RemoteFailed
from xapi_etl_processor.commands import bulk as command
from xapi_etl_processor.commands import remote
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.outcome import Outcome
from xapi_etl_processor.queues import messages

pytestmark = pytest.mark.usefixtures("settings")


KEYS = [f"section/1/video/2024-01-01T12-00-{n:02}Z_1.jsonl" for n in range(8)]


@pytest.fixture
def bundles(bucket: Bucket) -> Bucket:
    bucket.put_each(*KEYS)
    return bucket


def interrupt_after(monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    """Press Ctrl-C once, after so many outcomes."""
    original = run_bulk
    left = objects

    def run(request: Any, run_: Any, on_outcome: Any) -> Any:
        def counted(outcome: Outcome, position: str) -> None:
            nonlocal left
            on_outcome(outcome, position)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        return original(request, run_, counted)

    monkeypatch.setattr(command, "run_bulk", run)


def answered(payload: Mapping[str, Any], *context: Any) -> dict[str, Any]:
    """What the function answers, whose log is not this process's answer."""
    with redirect_stdout(sys.stderr):
        found: dict[str, Any] = json.loads(handler(payload, *context)["body"])
    return found


def told_token(said: Said) -> list[str]:
    """The option with which a command that ended early says that it can be continued."""
    found = re.search("run the same command with (--token) ([^ \n]+)", said.err)
    assert found
    return [*found.groups()]


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--dry-run"], ["--start", "2024-01-01"], []])
def test_a_token_goes_on_where_ctrl_c_has_ended_it(
    bundles: Bucket,
    ask: Ask,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
) -> None:
    interrupt_after(monkeypatch, 3)
    run = ["bulk", "--section", "1", *options]
    said = cli(*run, code=1)
    assert said.out == ""
    assert "stopped before it was finished" in said.err
    answer = cli(*run, *told_token(said)).json
    assert (answer["files_found"], answer["complete"]) == (5, True)
    cli(*run)
    assert ask(IDS) == ([] if "--dry-run" in options else ids(range(8)))


@pytest.mark.slow
def test_what_failed_before_ctrl_c_is_tried_again_behind_the_token(
    bundles: Bucket, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles.put(KEYS[1], body=b"no bundle\n")
    interrupt_after(monkeypatch, 3)
    answer = cli("bulk", *told_token(cli("bulk", code=1)), code=1).json
    assert (answer["files_found"], answer["files_failed"]) == (7, 1)
    assert [failure["key"] for failure in answer["failures"]] == [KEYS[1]]


@pytest.mark.slow
@pytest.mark.parametrize("remote_", [False, pytest.param(True, marks=pytest.mark.ci)])
def test_a_token_sends_the_rest_of_a_backfill_that_the_queue_has_stopped(
    bundles: Bucket,
    cli: Cli,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    remote_: bool,
) -> None:
    monkeypatch.setattr(remote, "invoke", lambda _, payload: answered(payload))
    monkeypatch.setattr(messages, "MESSAGE_OBJECTS", 3)
    run = ["bulk", "--engine", "queue", *(["--function", "f"] * remote_)]
    with monkeypatch.context() as patch:
        refusing(patch, refused=1)
        said = cli(*run, code=1)
    answer = said.json
    assert (answer["success"], answer["complete"], answer["files_sent"]) == (False, False, 3)
    answer = cli(*run, *told_token(said)).json
    assert (answer["success"], answer["failures"], answer["files_sent"]) == (True, [], 5)


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_the_function_is_asked_until_all_is_done(
    ask: Ask,
    clickhouse: ClickHouseServer,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
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
        return answered(payload, context(30, clock))

    monkeypatch.setattr(remote, "invoke", invoke)
    run = ["bulk", "--section", "1", "--function", "prod-loader"]
    said = cli(*run, code=1)
    so_far = said.json
    assert "no network" in said.err
    assert f"{so_far['files_found']} objects so far" in said.err
    answer = cli(*run, *told_token(said)).json
    assert so_far["files_found"] + answer["files_found"] == 8
    assert answer["continuation_token"] is None
    assert ask(IDS) == ids(range(8))
    assert asked[0] == {"mode": "bulk", "section_id": ["1"]}
    assert [payload.keys() - {"section_id"} for payload in asked[1:]] == [
        {"mode", "continuation_token"}
    ] * len(asked[1:])
    assert asked[3]["continuation_token"] == asked[2]["continuation_token"]


def test_the_function_has_settings_of_its_own_and_needs_none_here(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"s3_bucket": "older", "s3_prefix": "lrs/section/"}

    def invoke(_: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        assert payload == {"mode": "bulk", **asked}
        settled = {"success": True, "complete": True, "failures": [], "files_found": 3}
        nothing = dict.fromkeys(("stopped", "stop_reason", "continuation_token"))
        return {**settled, **nothing, "files_failed": 0}

    monkeypatch.setattr(remote, "invoke", invoke)
    monkeypatch.delenv("CLICKHOUSE_HOST")
    run = ["bulk", "--function", "f", "--bucket", asked["s3_bucket"]]
    run += ["--prefix", asked["s3_prefix"]]
    assert cli(*run).json["files_found"] == 3


def test_a_request_that_cannot_be_has_exit_code_2(cli: Cli, settings: Settings) -> None:
    for arguments, error in (
        (["--engine", "queue"], "BACKFILL_QUEUE_URL is not set"),
        (["--section", "x/y"], "section_id is 'x/y'"),
        (["--start", "2024-02-01", "--end", "2024-01-31"], "start_date is after end_date"),
        (["--start", ""], "start_date is ''"),
        (["--section", ""], "section_id is ''"),
        (["--token", "x"], "was not issued by this function"),
    ):
        out, err = cli("bulk", *arguments, code=2)
        assert out == ""
        assert error in err


@pytest.mark.usefixtures("bundles")
def test_what_ends_a_function_half_way_is_told_with_how_to_continue(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = {"success": True, "complete": False, "stopped": "time ran out"}
    pause |= {"stop_reason": "out_of_time", "continuation_token": "t", "failures": []}
    answers: list[Any] = [RemoteFailed("f failed")]

    def invoke(*_: Any) -> dict[str, Any]:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        found: dict[str, Any] = answer
        return found

    said = cli("bulk", "--function", "no-such-function", code=1)
    assert "the function no-such-function cannot be invoked" in said.err
    monkeypatch.setattr(remote, "invoke", invoke)
    assert cli("bulk", "--function", "f", code=1) == ("", "xapi_etl_processor: f failed\n")
    answers += [pause | {"files_found": 2, "files_failed": 0}, RemoteFailed("f failed")]
    said = cli("bulk", "--function", "f", code=1)
    assert said.json["files_found"] == 2
    assert said.err.endswith("f failed\n")
    assert told_token(said) == ["--token", "t"]
