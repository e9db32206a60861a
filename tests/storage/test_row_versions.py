"""Of two versions of one statement, the one from the later version of its object counts."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.faults.http_proxy import Answer, Request, S3Proxy
from tests.support.samples import notification, video

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
MARCH, APRIL = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)
MARCH_MS, APRIL_MS = 1_709_251_200_000, 1_711_929_600_000
STORED = "SELECT row_version FROM video_statements"


@pytest.fixture
def modified(store: S3Proxy) -> SimpleNamespace:
    """`now` is when S3 says that the object was modified."""
    made = SimpleNamespace(now=MARCH)

    def answer(request: Request) -> Answer | None:
        if request.method != "GET" or "list-type" in request.path:
            return None
        return Answer(headers={"Last-Modified": format_datetime(made.now, usegmt=True)})

    store.rule = answer
    return made


@pytest.mark.slow
@pytest.mark.fault(3, caught_by="row version")
@pytest.mark.parametrize("order", [("v1", "v2"), ("v2", "v1")])
def test_the_later_version_of_an_object_counts_in_whichever_order_they_are_loaded(
    bucket: Bucket, invoke: Invoke, ask: Ask, modified: SimpleNamespace, order: tuple[str, ...]
) -> None:
    when = {"v1": MARCH, "v2": APRIL}
    for version in order:
        modified.now = when[version]
        bucket.put(KEY, video(1, actor={"account": {"name": version, "homePage": "https://x"}}))
        assert invoke({"bucket": bucket.name, "key": KEY})["files_processed"] == 1
    assert ask("SELECT user_id, row_version FROM video_statements") == [["v2", APRIL_MS]]
    # After a merge too.
    ask("OPTIMIZE TABLE video_events FINAL")
    assert ask("SELECT user_id FROM video_events") == [["v2"]]


@pytest.mark.slow
def test_the_same_version_that_is_loaded_again_by_force_replaces_itself(
    bucket: Bucket, invoke: Invoke, ask: Ask, modified: SimpleNamespace
) -> None:
    bucket.put(KEY, video(1))
    invoke({"bucket": bucket.name, "key": KEY})
    ask("ALTER TABLE video_events UPDATE user_id = 'x' WHERE 1 SETTINGS mutations_sync = 2")
    invoke({"bucket": bucket.name, "key": KEY, "force_reprocess": True})
    assert ask("SELECT user_id, row_version FROM video_statements") == [["viewer-1", MARCH_MS]]


def test_the_version_costs_no_request_and_in_bulk_mode_is_that_of_what_was_read(
    bucket: Bucket, invoke: Invoke, ask: Ask, modified: SimpleNamespace, store: S3Proxy
) -> None:
    bucket.put(KEY, video(1))
    etag = bucket.client.head_object(Bucket=bucket.name, Key=KEY)["ETag"].strip('"')
    event = notification(bucket.name, KEY)
    event["Records"][0]["s3"]["object"] |= {"eTag": etag, "size": 300}
    invoke(event)
    assert [request.method for request in store.requests] == ["GET"]
    assert ask(STORED) == [[MARCH_MS]]
    # The listing's is older, if the object was replaced since.
    bucket.put(KEY, video(1, result={}))
    modified.now = APRIL
    invoke({"mode": "bulk"})
    assert ask(STORED) == [[APRIL_MS]]
