"""Answers of a request, one after the other, until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xapi_etl_processor.modes.answer import SHOWN_FAILURES
from xapi_etl_processor.modes.bulk import SHOWN_FILES, Answer
from xapi_etl_processor.outcome import StopReason

_LISTS = {"failures": SHOWN_FAILURES, "warnings": SHOWN_FAILURES, "files": SHOWN_FILES}


def sums(
    payload: Mapping[str, Any], ask: Callable[[Mapping[str, Any]], Answer]
) -> Iterator[Answer]:
    """Send the payload, and then the token of each answer; gives the sum of all answers until then.
    Ends early if something other than time stopped an answer: it would fail again at once.
    """
    total: Answer = {}
    while True:
        answer = ask(payload)
        total = added(total, answer)
        yield total
        if answer["stop_reason"] != StopReason.OUT_OF_TIME:
            return
        payload = {"mode": payload["mode"], "continuation_token": answer["continuation_token"]}


def added(total: Answer, answer: Answer) -> Answer:
    """Two answers as one: numbers but the section's are summed, and the rest is the second's."""
    found = {**total, **answer}
    for name in total.keys() & answer.keys():
        if type(answer[name]) in (int, float) and name != "section_id":
            found[name] = total[name] + answer[name]
        elif name in _LISTS:
            found[name] = (total[name] + answer[name])[: _LISTS[name]]
        elif name == "dropped_months":
            found[name] = sorted({*total[name], *answer[name]})
        elif name == "success":
            found[name] = total[name] and answer[name]
    return found
