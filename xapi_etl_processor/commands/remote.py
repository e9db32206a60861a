"""Has the stack's Lambda function answer a request, in as many invocations as it takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.errors import BadRequest, RemoteFailed
from xapi_etl_processor.modes.answer import SHOWN_FAILURES
from xapi_etl_processor.modes.bulk import SHOWN_FILES, Answer
from xapi_etl_processor.outcome import StopReason

_CONNECT_SECONDS = 10
"""How long connecting may take. Our limit."""

_ANSWER_SECONDS = 930
"""How long an answer is waited for. Lambda's limit for an invocation is 900 s."""

_COUNTERS = {
    *("events_processed", "video_events_processed", "other_events", "rejected_lines"),
    *("blank_lines", "forgotten_events", "timestamps_replaced", "rows_removed"),
    *("files_found", "files_processed", "files_skipped", "files_ignored", "files_failed"),
    *("files_sent", "bytes_sent", "messages", "bytes_found", "list_calls"),
    *("duration_ms", "estimated_minutes", "sections", "rows_read"),
}
_LISTS = {"failures": SHOWN_FAILURES, "warnings": SHOWN_FAILURES, "files": SHOWN_FILES}


def sums(name: str, payload: Mapping[str, Any]) -> Iterator[Answer]:
    """Send the payload, and then the token of each answer; gives the sum of all answers until then.
    Ends early if something other than time stopped an answer: it would fail again at once.
    """
    total: Answer = {}
    while True:
        answer = invoke(name, payload)
        total = added(total, answer)
        yield total
        if answer["stop_reason"] != StopReason.OUT_OF_TIME:
            return
        payload = {"mode": payload["mode"], "continuation_token": answer["continuation_token"]}


def added(total: Answer, answer: Answer) -> Answer:
    """Two answers as one: counters are summed, and the rest is that of the second."""
    found = {**total, **answer}
    for name in total.keys() & answer.keys():
        if name in _COUNTERS:
            found[name] = total[name] + answer[name]
        elif name in _LISTS:
            found[name] = (total[name] + answer[name])[: _LISTS[name]]
        elif name == "dropped_months":
            found[name] = sorted({*total[name], *answer[name]})
        elif name == "success":
            found[name] = total[name] and answer[name]
    return found


def invoke(name: str, payload: Mapping[str, Any]) -> Answer:
    """The body that the function answers; raises BadRequest for status 400, else RemoteFailed."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # One attempt: a second one would run beside the first.
        function = aws.client("lambda", _CONNECT_SECONDS, _ANSWER_SECONDS, attempts=1)
        reply = function.invoke(FunctionName=name, Payload=json.dumps(payload).encode())
        answer = json.loads(reply["Payload"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise RemoteFailed(f"the function {name} cannot be invoked: {error}") from None
    if "FunctionError" in reply or not isinstance(answer, dict) or "body" not in answer:
        text = answer.get("errorMessage") if isinstance(answer, dict) else None
        raise RemoteFailed(f"the function {name} failed: {text or 'see its log'}")
    try:
        body: Answer = json.loads(answer["body"])
        if answer["statusCode"] == 400:
            raise BadRequest(f"the function {name} refuses this: {body['error']}")
        body["stop_reason"]
    except (ValueError, TypeError, LookupError):
        raise RemoteFailed(
            f"{name} is another function, or one of an older version: check its name, and deploy"
            " this version"
        ) from None
    return body
