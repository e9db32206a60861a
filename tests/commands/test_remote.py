"""Answers of bulk requests: added up until all is done, and given by a function."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import BadRequest, RemoteFailed
from xapi_etl_processor.bulk.queue import Sent
from xapi_etl_processor.commands import remote
from xapi_etl_processor.commands.remote import added, sums
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.run import Run, Wanted, connections


@pytest.mark.parametrize("last", [None, "busy", "insert_failed"])
def test_only_time_that_ran_out_has_the_next_answer_asked_for(
    last: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(
        {"stop_reason": reason, "continuation_token": token}
        for reason, token in (("out_of_time", "a"), ("out_of_time", "b"), (last, "c"))
    )
    asked = []

    def invoke(_: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(payload.get("continuation_token"))
        return next(answers)

    monkeypatch.setattr(remote, "invoke", invoke)
    assert [total["stop_reason"] for total in sums("f", {"mode": "bulk"})][-1] == last
    assert asked == [None, "a", "b"]


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
    once = {name: 1 for name, value in answer.items() if type(value) in (int, float)}
    assert added(once, once) == {name: 1 if name == "section_id" else 2 for name in once}
    assert {"files_sent", "bytes_found", "rows_removed", "estimated_minutes"} <= once.keys()


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
