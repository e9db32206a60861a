"""Bodies arrive in chunks: what is fetched ahead, what is streamed, and that memory is bounded."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import replace
from inspect import GEN_CLOSED, getgeneratorstate
from pathlib import Path
from typing import Any

import boto3
import pytest

from local import process
from local.bundles import generate
from local.clickhouse_server import ClickHouseServer
from tests.conftest import Bucket
from tests.faults.http_proxy import Answer, S3Proxy
from tests.support.clocks import run_out_of_time_after
from tests.support.samples import video
from xapi_etl_processor import common
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.outcome import Status
from xapi_etl_processor.run import Connections, Run, Wanted, connections
from xapi_etl_processor.s3 import fetch, listing
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.listing import Scope
from xapi_etl_processor.s3.objects import S3Object

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
MEGABYTE = 1024**2

MEMORY_LIMIT = 128
"""Megabytes above idle, for an object of any size. Our promise."""


@pytest.mark.slow
def test_objects_come_in_order_the_small_ones_whole_and_the_large_ones_in_parts(
    bucket: Bucket, aws_environment: dict[str, str]
) -> None:
    bodies = [b"z" * (fetch.SMALL_BYTES + 1 if n % 5 == 0 else n) for n in range(10)]
    for number, body in enumerate(bodies):
        bucket.put(f"{number}.jsonl", body=body)
    objects = list(listing.listing(Stores(), Scope(bucket.name)))
    found = [(o.key, list(body)) for o, body in fetch.bodies(Stores(concurrency=3), objects)]
    assert [key for key, _ in found] == [f"{number}.jsonl" for number in range(10)]
    for body, (key, chunks) in zip(bodies, found, strict=True):
        assert b"".join(chunks) == body, key
        assert (len(chunks) > 1) is (len(body) > fetch.SMALL_BYTES), key


@pytest.mark.slow
def test_no_more_small_objects_are_fetched_ahead_than_allowed(
    bucket: Bucket, store: S3Proxy
) -> None:
    for number in range(12):
        bucket.put(f"{number:02}.jsonl", body=b"z")
    objects = list(listing.listing(Stores(), Scope(bucket.name)))
    taken = 0
    for _ in fetch.bodies(Stores(concurrency=5), objects):
        taken += 1
        assert len(store.asked("GET", ".jsonl")) <= taken + 5
    assert taken == len(store.asked("GET", ".jsonl")) == 12


@pytest.mark.slow
@pytest.mark.fault(12, caught_by="deadline")
def test_fetching_ahead_ends_with_the_run_and_not_at_garbage_collection(
    bucket: Bucket,
    store: S3Proxy,
    settings: Settings,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[Generator[Any, None, None]] = []
    original = fetch.bodies

    def kept(*arguments: Any) -> Any:
        opened.append(original(*arguments))
        return opened[-1]

    monkeypatch.setattr(fetch, "bodies", kept)
    objects = [S3Object(bucket.name, bucket.put(f"{n}.jsonl", video(n))) for n in range(6)]
    clock = run_out_of_time_after(clickhouse, inserts=1)
    small = replace(settings, batch_rows=1)
    one = Connections(Stores(concurrency=1), ClickHouse(small))
    run = Run(small, one, "event", deadline=Deadline(60, clock))
    statuses = [outcome.status for outcome in common.process(objects, run)]
    one.clickhouse.disconnect()
    # The second may have been read while the first was on its way.
    done = statuses.count(Status.PROCESSED)
    assert done in (1, 2)
    assert statuses == [Status.PROCESSED] * done + [Status.WAITING] * (6 - done)
    assert len(store.asked("GET")) <= 2
    abandoned = common.process(
        objects, Run(settings, connections(settings), "event", Wanted(force=True))
    )
    next(abandoned)
    abandoned.close()
    assert [getgeneratorstate(bodies) for bodies in opened] == [GEN_CLOSED] * 2


def test_as_many_objects_are_requested_at_a_time_as_may_be(
    bucket: Bucket, store: S3Proxy, settings: Settings
) -> None:
    """S3 answers none of the requests before all have arrived."""
    objects = [S3Object(bucket.name, bucket.put(f"{n}.jsonl", video(n))) for n in range(4)]
    together = {"HEAD": threading.Barrier(4), "GET": threading.Barrier(4)}
    store.rule = lambda request: Answer(do=lambda: together[request.method].wait(5))
    four = Connections(Stores(concurrency=4), ClickHouse(settings))
    outcomes = common.process(objects, Run(settings, four, "event"))
    assert [outcome.status for outcome in outcomes] == ["processed"] * 4
    assert not any(barrier.broken for barrier in together.values())
    four.clickhouse.disconnect()


def test_connections_are_used_again(bucket: Bucket, store: S3Proxy) -> None:
    """Opening one takes longer than reading a small object."""
    objects = [S3Object(bucket.name, bucket.put(f"{n}.jsonl"), "x", 0) for n in range(20)]
    stores = Stores(concurrency=2)
    for _ in range(2):
        assert len(list(fetch.bodies(stores, objects))) == 20
    # One more, if both threads come back for one at once.
    assert store.connections <= 3


_CHILD = """
import json, resource, sys
from xapi_etl_processor.lambda_function import handler
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
bucket, small, large = sys.argv[1:]
handler({"health_check": True})
handler({"bucket": bucket, "key": small})
idle = peak()
body = json.loads(handler({"bucket": bucket, "key": large})["body"])
print(json.dumps({"above": peak() - idle, "body": body}))
"""


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["video", "rejected", "gzip bomb of blank lines"])
def test_memory_does_not_grow_with_the_object(
    settings: Settings, aws_environment: dict[str, str], tmp_path: Path, kind: str
) -> None:
    """A small part of the sizes that `make bench` uses."""
    bundle = next(b for b in generate(seed=3) if b.video)
    lines = {
        "video": b"\n".join(sorted(bundle.video_lines)) + b"\n",
        "rejected": random.Random(1).randbytes(4096).replace(b"\n", b" ") + b"\n",
    }
    if kind in lines:
        block = lines[kind] * (MEGABYTE // len(lines[kind]))
        body, count = block * 32, block.count(b"\n") * 32
        if kind == "rejected":
            # An object without a single statement fails.
            body += next(line for line in bundle.lines if b"viewed" in line) + b"\n"
    else:
        count = 16 * MEGABYTE
        body = gzip.compress(b"\n" * (4 * MEGABYTE), 9) * 4
    # S3 in a separate process, so that only the loader is measured.
    with process.s3() as variables:
        client = boto3.client("s3", endpoint_url=variables["AWS_ENDPOINT_URL"])
        client.create_bucket(Bucket="large")
        client.put_object(Bucket="large", Key="small.jsonl", Body=b"\n")
        client.put_object(Bucket="large", Key="large.jsonl", Body=body)
        client.close()
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, "large", "small.jsonl", "large.jsonl"],
            env={**os.environ, **variables, "LOG_LEVEL": "CRITICAL"}
            | {"POWERTOOLS_METRICS_DISABLED": "true", "S3_XAPI_BUCKET_NAME": "large"}
            | {"S3_XAPI_PREFIX": "/"},
            capture_output=True,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    names = {"video": "video_events_processed", "rejected": "rejected_lines"}
    name = names.get(kind, "blank_lines")
    assert found["body"][name] == count
    assert found["above"] < MEMORY_LIMIT
