"""Answers of AWS that end early: asked for again, or an error; never taken for an empty one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import BotoCoreError

from tests.conftest import Bucket, Invoke, forget_connections, small_pages
from tests.faults.http_proxy import Answer, S3Proxy
from tests.faults.tcp_proxy import CutAnswers, tcp_proxy
from tests.support.samples import context, video
from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import ConfigurationError, RemoteFailed, S3Error
from xapi_etl_processor.commands import remote
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.queues import sqs as queue
from xapi_etl_processor.run import connections
from xapi_etl_processor.s3 import client

pytestmark = pytest.mark.slow

SECRET = "what-the-secret-holds"
KEY = "section/1/video/1.jsonl"


@pytest.fixture
def aws(
    aws_environment: dict[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CutAnswers]:
    """A proxy in front of all of AWS, which only the code under test uses; nobody sleeps."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    with tcp_proxy(int(aws_environment["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        forget_connections()
        yield proxy.answers
        forget_connections()


@pytest.fixture
def queue_url(aws_environment: dict[str, str]) -> str:
    """A queue with one message, which is in progress."""
    sqs = boto3.client("sqs", endpoint_url=aws_environment["AWS_ENDPOINT_URL"])
    url = str(sqs.create_queue(QueueName=f"q-{uuid4().hex[:12]}")["QueueUrl"])
    sqs.send_message(QueueUrl=url, MessageBody="one")
    sqs.receive_message(QueueUrl=url)
    sqs.close()
    return url


@pytest.fixture
def secret(aws_environment: dict[str, str], settings: Settings) -> Settings:
    """Settings whose password is in a secret."""
    manager = boto3.client("secretsmanager", endpoint_url=aws_environment["AWS_ENDPOINT_URL"])
    made = manager.create_secret(Name=f"s-{uuid4().hex[:12]}", SecretString=SECRET)
    manager.close()
    return Settings("h", clickhouse_password_secret_arn=made["ARN"])


def read_again(settings: Settings) -> str:
    secrets.forget_password(settings)
    return secrets.password(settings)


Asking = Callable[[], Any]


@pytest.fixture
def asked(
    bucket: Bucket, settings: Settings, queue_url: str, secret: Settings
) -> dict[str, Asking]:
    """Everything that we ask of AWS by boto3, by name."""
    place: Any = {"Bucket": bucket.name, "Key": bucket.put(KEY, video(1))}
    s3 = connections(settings).s3.boto3

    def listed() -> list[str]:
        found = s3.list_objects_v2(Bucket=bucket.name, Prefix="section/")
        return [item["Key"] for item in found["Contents"]]

    def read() -> bytes | None:
        # Whoever reads a body notices that it ends early (s3/fetch.py), and reads on.
        with suppress(BotoCoreError):
            return s3.get_object(**place)["Body"].read()
        return None

    return {
        "list objects": listed,
        "describe an object": lambda: s3.head_object(**place)["ContentLength"] > 0,
        "read an object": read,
        "send messages": lambda: queue.send(queue_url, ["a", "b"], FOREVER),
        "ask how many messages wait": lambda: queue.depth(queue_url)["in_progress"],
        "read a secret": lambda: read_again(secret),
    }


WHOLE = {
    "list objects": [KEY],
    "describe an object": True,
    "send messages": ({0, 1}, ""),
    "ask how many messages wait": 1,
    "read a secret": SECRET,
}


@pytest.mark.fault(20, caught_by="an answer without its length is requested again")
def test_an_answer_is_asked_for_again_wherever_it_ended(
    aws: CutAnswers, asked: dict[str, Asking]
) -> None:
    for what, ask in asked.items():
        whole = ask()
        assert whole == WHOLE.get(what, whole)
        after = 0
        while True:
            aws.after, aws.times, aws.fired = after, 1, 0
            found = ask()
            assert found == whole or (what == "read an object" and found is None), (what, after)
            if not aws.fired:
                break
            # Cut at a few places in the status line, and at some after it.
            after += 9 if after < 18 else 151
        assert after > 100, what


@pytest.mark.fault(20, caught_by="an answer without its length is requested again")
def test_an_answer_that_always_ends_early_is_an_error(
    aws: CutAnswers, asked: dict[str, Asking]
) -> None:
    aws.after, aws.times = 40, 1000
    for what in ("list objects", "describe an object", "ask how many messages wait"):
        with pytest.raises(Exception, match="Connection was closed before we received"):
            asked[what]()
    taken, problem = asked["send messages"]()
    assert (taken, "ConnectionClosedError" in problem) == (set(), True)
    with pytest.raises(ConfigurationError, match="no whole answer, ConnectionClosedError"):
        asked["read a secret"]()
    with pytest.raises(RemoteFailed, match="Connection was closed"):
        remote.invoke("function", {"health_check": True})


@pytest.mark.fault(20, 46, caught_by="an answer without its length is requested again")
def test_a_page_of_a_listing_that_ends_in_its_headers_loses_no_object(
    bucket: Bucket, invoke: Invoke, aws: CutAnswers, settings: Settings
) -> None:
    for number in range(3):
        bucket.put(f"section/1/video/{number}.jsonl", body=b"")
    small_pages(settings, 2)
    # Only the second page is asked for with a token.
    for fired, asked in enumerate((b"list-type=2", b"continuation-token="), 1):
        aws.to, aws.after, aws.times = asked, len("HTTP/1.1 200 OK\r\n") + 9, 1
        found = invoke({"section_id": 1, "dry_run": True})
        assert aws.fired == fired
        assert (found["success"], found["complete"], found["files_found"]) == (True, True, 3)


def test_a_listing_whose_pages_always_end_early_is_no_success(
    bucket: Bucket, invoke: Invoke, aws: CutAnswers
) -> None:
    bucket.put(KEY, video(1))
    aws.to, aws.after, aws.times = b"list-type=2", 40, 1000
    for more in ({}, {"verify": True}):
        with pytest.raises(S3Error, match="could not be read to its end"):
            handler({"mode": "bulk", **more}, context())
    assert aws.fired == 2 * client.ATTEMPTS
    health = invoke({"health_check": True})
    assert (health.status, health["s3"]["ok"]) == (503, False)


def test_a_page_that_does_not_say_whether_it_is_the_last_is_no_answer(
    bucket: Bucket, store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Something between S3 and us may answer with an empty body, and say so."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    bucket.put(KEY, video(1))
    store.rule = lambda request: Answer(body=b"") if "list-type=2" in request.path else None
    with pytest.raises(S3Error, match="could not be read to its end"):
        handler({"mode": "bulk"}, context())
