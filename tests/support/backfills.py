"""Backfills: keys of bundles by month, what is in their queue, and a queue that refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor.queues import sqs as sqs_calls

REQUEST = {"mode": "bulk", "engine": "queue"}


def key(number: int, month: int = 1) -> str:
    return f"section/1/video/2024-{month:02}-01T12-{number // 60:02}-{number % 60:02}Z_1.jsonl"


def bodies(backfill: SimulatedQueue) -> list[dict[str, Any]]:
    """The messages that are visible; they are then invisible."""
    return [json.loads(record["body"]) for record in backfill.receive()]


def keys_in(body: dict[str, Any]) -> list[str]:
    return [record["s3"]["object"]["key"] for record in body["Records"]]


def refusing(monkeypatch: pytest.MonkeyPatch, *, refused: int, code: str = "InternalError") -> None:
    """SQS takes all messages but the one with this number, counted from the first that is sent."""
    call, count = sqs_calls._call, 0

    def refuse(operation: str, url: str, part: list[dict[str, Any]]) -> Any:
        nonlocal count
        good = [one for n, one in enumerate(part) if n + count != refused]
        failed = [{"Id": one["Id"], "Code": code} for one in part if one not in good]
        count += len(part)
        answer = call(operation, url, good) if good else {}
        return {**answer, "Failed": failed}

    monkeypatch.setattr(sqs_calls, "_call", refuse)
