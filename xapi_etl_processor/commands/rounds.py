"""Answers of a bulk request, one after the other, until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xapi_etl_processor.modes.answer import SHOWN_FAILURES
from xapi_etl_processor.modes.bulk import SHOWN_FILES
from xapi_etl_processor.run import TIME_RAN_OUT

Answer = dict[str, Any]
_LISTS = {"failures": SHOWN_FAILURES, "files": SHOWN_FILES}
_OF_THE_LAST = ("section_id", "complete", "stopped", "continuation_token")


def complete(
    payload: Mapping[str, Any],
    ask: Callable[[Mapping[str, Any]], Answer],
    on_answer: Callable[[Answer], None],
    so_far: Answer | None = None,
) -> Answer:
    """Send the payload, and then the tokens of the answers; returns the sum of the answers, with
    those before if they are given.

    Ends early, with a token, if something else than the time has stopped an answer: at once it
    would do so again.
    """
    total = dict(so_far or {})
    while True:
        answer = ask(payload)
        total = added(total, answer)
        on_answer(total)
        if answer["stopped"] != TIME_RAN_OUT.text:
            return total
        payload = {"continuation_token": answer["continuation_token"]}


def added(total: Mapping[str, Any], answer: Mapping[str, Any]) -> Answer:
    """The sum of two answers."""
    found = {**total, **answer}
    for name, value in answer.items():
        before = total.get(name)
        if name in _OF_THE_LAST or before is None:
            continue
        if isinstance(value, bool):
            found[name] = before and value
        elif isinstance(value, int | float):
            found[name] = before + value
        elif name in _LISTS:
            found[name] = (before + value)[: _LISTS[name]]
    return found
