"""How long a backfill takes, worked out by hand."""

from __future__ import annotations

import pytest

from xapi_etl_processor.bulk.queue import Sent
from xapi_etl_processor.queues.messages import Outgoing
from xapi_etl_processor.s3.objects import S3Object


def message(seconds: float) -> Outgoing:
    return Outgoing((S3Object("b", "1.jsonl"),), "{}", seconds)


def sent(concurrency: int, *messages: Outgoing) -> Sent:
    made = Sent(concurrency)
    for one in messages:
        made.add(one)
    return made


def test_minutes_are_those_of_as_many_invocations_as_run_at_once() -> None:
    # 1,200 messages of 9.9 seconds, and 0.1 for each invocation: 12,000 seconds.
    messages = [message(9.9)] * 1200
    assert sent(5, *messages).minutes == pytest.approx(40)
    assert sent(100, *messages).minutes == pytest.approx(2)
    # The longest message is not divided.
    assert sent(100, message(11.9), message(1.9)).minutes == pytest.approx(0.2)
    assert sent(5).minutes == 0
    assert sent(5, *[message(9.9)] * 2000).body()["estimated_minutes"] == 66.7
