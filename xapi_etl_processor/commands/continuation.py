"""Answers of a bulk request, one after the other, until it is complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from xapi_etl_processor.modes.answer import SHOWN_CHARACTERS, SHOWN_FAILURES
from xapi_etl_processor.modes.bulk import SHOWN_FILES, Answer
from xapi_etl_processor.outcome import StopReason

SUMMED = {
    *("events_processed", "video_events_processed", "other_events", "rejected_lines"),
    *("blank_lines", "forgotten_events", "timestamps_replaced", "rows_removed"),
    *("files_found", "files_processed", "files_skipped", "files_ignored", "files_failed"),
    *("files_sent", "bytes_sent", "messages", "bytes_found", "list_calls"),
    *("duration_ms", "estimated_minutes"),
}
"""The counters of an answer of bulk mode."""

_LISTS = {"failures": SHOWN_FAILURES, "files": SHOWN_FILES}


def complete(
    payload: Mapping[str, Any],
    ask: Callable[[Mapping[str, Any]], Answer],
    on_answer: Callable[[Answer], None],
    so_far: Answer | None = None,
) -> Answer:
    """Send the payload, and then the token of each answer; returns the sum of all answers, with
    those in `so_far`.

    Stops early, with a token, if something other than time stopped an answer: trying again at once
    would fail again.
    """
    total = dict(so_far or {})
    while True:
        answer = ask(payload)
        total = added(total, answer)
        on_answer(total)
        if answer["stop_reason"] != StopReason.OUT_OF_TIME:
            return total
        payload = {"continuation_token": answer["continuation_token"]}


def without_stop(total: Answer) -> Answer:
    """The sum of answers without the failures that come after its token: those objects are tried
    again.
    """
    cause = (total["stopped"] or "")[:SHOWN_CHARACTERS]
    failures = [failure for failure in total["failures"] if failure["error"] != cause]
    all_named = len(failures) < SHOWN_FAILURES
    again = max(0, total["files_failed"] - len(failures)) if all_named else 0
    return {
        **total,
        "success": not failures,
        "failures": failures,
        "files_failed": total["files_failed"] - again,
        "files_found": total["files_found"] - again,
    }


def added(total: Mapping[str, Any], answer: Mapping[str, Any]) -> Answer:
    """Two answers as one: counters are summed, and the rest is that of the second."""
    found = {**total, **answer}
    for name in total.keys() & answer.keys():
        if name in SUMMED:
            found[name] = total[name] + answer[name]
        elif name in _LISTS:
            found[name] = (total[name] + answer[name])[: _LISTS[name]]
        elif name == "success":
            found[name] = total[name] and answer[name]
    return found
