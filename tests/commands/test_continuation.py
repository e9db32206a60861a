"""Answers of bulk requests: added up until all is done, kept, and given by a function."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest, RemoteFailed
from xapi_etl_processor.bulk.queue import Sent
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.commands import remote, resume
from xapi_etl_processor.commands.continuation import SUMMED, added, complete, without_stop
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.run import Run, Wanted, connections


def test_a_damaged_progress_is_as_none(tmp_path: Path) -> None:
    path = tmp_path / "bulk.json"
    other = '{"started": "x"}', '{"started": 1, "sent": true}', '{"started": 1, "answer": 3}'
    for text in ("", "[]", *other):
        path.write_text(text)
        assert resume.read(path) is None, text


def test_each_request_keeps_its_own_progress_and_finds_it_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    variables = {"S3_XAPI_BUCKET_NAME": "bundles", "S3_XAPI_OTHER_BUCKETS": "older"}

    def file(function: str | None = None, prefix: str = "section/", **asked: Any) -> Path:
        settings = Settings.from_env(
            {**variables, "S3_XAPI_PREFIX": prefix}, needs_clickhouse=False
        )
        return resume.file_of(read_request({"mode": "bulk", **asked}, settings), function)

    asked: list[dict[str, Any]] = [
        {},
        {"function": "prod-loader"},
        {"function": "test-loader"},
        {"prefix": "lrs/section/"},
        {"s3_bucket": "older"},
        {"section_id": 1},
        {"section_id": 1, "start_date": "2024-01-01"},
        {"force_reprocess": True},
        {"dry_run": True},
    ]
    names = [file(**one) for one in asked]
    assert len(set(names)) == len(asked)
    assert names == [file(**one) for one in asked]
    assert {name.parent for name in names} == {tmp_path / "xapi-etl-processor"}


@pytest.mark.parametrize("last", [None, "busy", "insert_failed"])
def test_only_time_that_ran_out_has_the_next_answer_asked_for(last: str | None) -> None:
    answers = iter(
        {"stop_reason": reason, "continuation_token": token}
        for reason, token in (("out_of_time", "a"), ("out_of_time", "b"), (last, "c"))
    )
    asked = []

    def ask(payload: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(payload.get("continuation_token"))
        return next(answers)

    assert complete({}, ask, lambda _: None)["stop_reason"] == last
    assert asked == [None, "a", "b"]


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
    def answer(success: bool, files: int, minutes: float, failed: range, token: str | None) -> Any:
        return {
            "success": success,
            "files_found": files,
            "estimated_minutes": minutes,
            "section_id": 1,
            "failures": [{"key": str(n)} for n in failed],
            "complete": token is None,
            "continuation_token": token,
        }

    first = answer(False, 3, 0.5, range(15), "a")
    second = answer(True, 4, 0.25, range(15, 30), None)
    assert added(first, second) == answer(False, 7, 0.75, range(20), None)
    assert added({}, first) == first


def test_each_counter_of_an_answer_is_added_up(settings: Settings) -> None:
    run = Run(settings, connections(settings), "bulk", Wanted(replace=True))
    answer = Summary().body(7, run) | Sent(1).body() | {"bytes_found": 0, "list_calls": 0}
    counters = {name for name, value in answer.items() if type(value) in (int, float)}
    assert counters - {"section_id"} == SUMMED


class Function:
    """Lambda's client for a function that answers this."""

    def __init__(self, answer: Any, **more: Any) -> None:
        self.reply = {"Payload": io.BytesIO(json.dumps(answer).encode()), **more}

    def invoke(self, **_: Any) -> dict[str, Any]:
        return self.reply


def test_a_function_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    raised = Function({"errorMessage": "bulk: time ran out"}, FunctionError="Unhandled")
    refused = {"statusCode": 400, "body": json.dumps({"error": "engine is 7"})}
    told: list[tuple[Function, type[Exception], str]] = [
        (raised, RemoteFailed, "the function f failed: bulk: time ran out"),
        (Function(None, FunctionError="Unhandled"), RemoteFailed, "see its log"),
        (Function({"batchItemFailures": []}), RemoteFailed, "see its log"),
        (Function(None), RemoteFailed, "see its log"),
        (Function([]), RemoteFailed, "see its log"),
        (Function({"statusCode": 200, "body": "hello"}), RemoteFailed, "another function"),
        (Function({"statusCode": 200, "body": '{"success": true}'}), RemoteFailed, "another"),
        (Function(refused), BadRequest, "the function f refuses this: engine is 7"),
    ]
    for function, error, text in told:
        monkeypatch.setattr(aws, "client", lambda *_, function=function, **__: function)
        with pytest.raises(error, match=text):
            remote.invoke("f", {"mode": "bulk"})


def test_a_functions_answer_is_its_body_asked_for_once_and_waited_for_until_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lambda ends an invocation after 900 s. A second attempt would run beside the first."""
    body = {"success": True, "stop_reason": None}
    asked: list[Any] = []

    def client(*given: Any, **more: Any) -> Function:
        asked.append((given, more))
        return Function({"statusCode": 200, "body": json.dumps(body)})

    monkeypatch.setattr(aws, "client", client)
    assert remote.invoke("f", {}) == body
    assert asked == [(("lambda", 10, 930), {"attempts": 1})]
