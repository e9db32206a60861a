"""How long a backfill takes and what it costs, worked out by hand from AWS's list prices."""

from __future__ import annotations

import pytest

from xapi_etl_processor.bulk.estimate import Estimate
from xapi_etl_processor.queues.messages import Outgoing
from xapi_etl_processor.s3.objects import S3Object


def message(seconds: float, *sizes: int | None, length: int = 1000) -> Outgoing:
    objects = tuple(S3Object("b", f"{n}.jsonl", "", size) for n, size in enumerate(sizes))
    return Outgoing(objects, "x" * length, seconds)


def estimate(concurrency: int, *messages: Outgoing, list_calls: int = 0) -> Estimate:
    made = Estimate(concurrency, list_calls)
    for one in messages:
        made.add(one)
    return made


def test_minutes_are_those_of_as_many_invocations_as_run_at_once() -> None:
    # 1,200 messages of 9.9 seconds, and 0.1 for each invocation: 12,000 seconds.
    messages = [message(9.9, 1)] * 1200
    assert estimate(5, *messages).minutes == pytest.approx(40)
    assert estimate(100, *messages).minutes == pytest.approx(2)
    # The longest message is not divided.
    assert estimate(100, message(11.9, 1), message(1.9, 1)).minutes == pytest.approx(0.2)
    assert estimate(5).minutes == 0


def test_dollars_are_those_of_lambda_sqs_and_s3() -> None:
    small = message(9.9, *[12_000] * 500, length=140_000)
    # A million objects in 2,000 messages:
    # Lambda: 20,000 seconds of 1 GB, $0.333334, and 2,000 requests, $0.0004.
    # S3: a million GETs, $0.40, and 1,000 LISTs, $0.005.
    # SQS: 3 x 64 KiB sent and received, and a deletion: 14,000 requests, $0.0056.
    million = estimate(5, *[small] * 2000, list_calls=1000)
    assert million.dollars == pytest.approx(0.333334 + 0.0004 + 0.40 + 0.005 + 0.0056)


def test_a_large_object_is_read_in_parts_and_one_of_unknown_size_at_least_once() -> None:
    # s3.PART_BYTES is 1 MiB.
    mib = 1024 * 1024
    assert estimate(5, message(1, mib, mib + 1, 10 * mib, 0, None)).gets == 1 + 2 + 10 + 1 + 1


def test_the_answer_says_what_is_sent_rounded() -> None:
    small = message(9.9, *[12_000] * 500, length=140_000)
    assert estimate(5, *[small] * 2000, list_calls=1000).body() == {
        "engine": "queue",
        "files_sent": 1_000_000,
        "bytes_sent": 12_000_000_000,
        "messages": 2000,
        "estimated_minutes": 66.7,
        "estimated_dollars": 0.7443,
    }
