"""The messages of a backfill: every object in one, in order, within limits, read as written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.samples import sqs
from xapi_etl_processor.queues import messages as limits
from xapi_etl_processor.queues.messages import (
    MESSAGE_BYTES,
    MESSAGE_SECONDS,
    expected_seconds,
    messages,
)
from xapi_etl_processor.queues.payloads import Backfill, parse_payload
from xapi_etl_processor.s3.objects import S3Object

MIB = 1024 * 1024
NOTHING = Backfill()


def bundle(number: int, size: int = 12_000, key: str = "section/1/video/{}.jsonl") -> S3Object:
    return S3Object("bundles", key.format(number), f"etag-{number}", size)


KEYS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=40),
    st.just("section/1/video/2024-01-31T23-59-59Z_1.jsonl"),
    st.just("section/1/video/2024-02-01T00-00-00Z_1.jsonl"),
    st.just("section/2/video/é +%2B&=/..//x.jsonl.gz"),
)
OBJECTS = st.builds(
    S3Object,
    st.just("bundles"),
    KEYS,
    st.sampled_from(["", "0d9f", "0d9f-12"]),
    st.one_of(st.none(), st.integers(0, 5 * 1024**4)),
)
WISHES = st.builds(Backfill, st.booleans(), st.booleans())


@settings(max_examples=30)
@given(st.lists(OBJECTS, max_size=30), WISHES)
def test_the_parser_reads_every_object_once_and_in_order(
    objects: list[S3Object], wish: Backfill
) -> None:
    made = list(messages(objects, wish))
    assert [obj for message in made for obj in message.objects] == objects
    for message in made:
        (read,) = parse_payload(sqs(a=message.body)).messages
        assert (read.objects, read.backfill, read.error) == (message.objects, wish, "")


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 400 * MIB), st.booleans()), max_size=60),
    st.integers(1, 5),
    st.integers(500, 2000),
)
def test_a_message_of_several_objects_is_within_every_limit_and_no_smaller_than_it_must_be(
    sizes: list[tuple[int, bool]], most: int, most_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MESSAGE_OBJECTS", most)
        patch.setattr(limits, "MESSAGE_BYTES", most_bytes)
        objects = [
            bundle(n, size, "section/1/video/{}.jsonl" + ".gz" * packed)
            for n, (size, packed) in enumerate(sizes)
        ]
        made = list(messages(objects, NOTHING))
        for message in made:
            assert message.seconds == pytest.approx(sum(map(expected_seconds, message.objects)))
            if len(message.objects) > 1:
                assert len(message.objects) <= most
                assert len(message.body.encode()) <= most_bytes
                assert message.seconds <= MESSAGE_SECONDS
        for message, following in pairwise(made):
            first = following.objects[0]
            (both, *_) = messages([*message.objects, first], NOTHING)
            assert both.objects == message.objects


def test_a_message_has_five_hundred_small_bundles_or_as_many_as_fit() -> None:
    key = "section/2001/video/2024-01-01T12-00-00Z_{:032x}.jsonl"
    made = list(messages((bundle(n, key=key) for n in range(1201)), NOTHING))
    assert [len(message.objects) for message in made] == [500, 500, 201]
    # The longest keys: 1,024 bytes of UTF-8, of which the form's encoding makes 3,072.
    longest = [bundle(n, key="é" * 500 + "{:024}") for n in range(100)]
    made += list(messages(longest, NOTHING))
    assert [len(message.objects) for message in made[3:]] == [75, 25]
    assert max(len(message.body) for message in made) <= MESSAGE_BYTES


def test_expected_seconds_follow_the_measurements() -> None:
    for key, size, seconds in (
        # 1 ms, and 25 us for each 1,200 bytes, on 1024/1769 of a processor.
        ("a.jsonl", 0, 0.001_727_5),
        ("a.jsonl", 12_000, 0.002_159_4),
        ("a.jsonl", 120_000_000, 4.3206),
        # 8 MB of gzip hold 120 MB.
        ("a.jsonl.GZ", 8_000_000, 4.3206),
    ):
        found = expected_seconds(S3Object("b", key, "", size))
        assert found == pytest.approx(seconds, rel=1e-4), (key, size)


def test_a_month_ends_a_message() -> None:
    def written(day: str) -> S3Object:
        return bundle(0, key=f"section/1/video/{day}Z_1.jsonl")

    def modified(year: int, month: int) -> S3Object:
        return S3Object("bundles", "a.jsonl", "e", 1, datetime(year, month, 1, tzinfo=UTC))

    objects = [
        *(written("2023-01-31T12-00-00"), written("2023-01-01T12-00-00")),
        *(written("2024-01-01T12-00-00"), modified(2024, 1)),
        # A day without a full time is no timestamp, but tells the month: see `objects.day_of`.
        *(modified(2024, 2), written("2024-02-29T120000")),
        written("2024-03-31T120000"),
        bundle(1),
    ]
    made = messages(objects, NOTHING)
    assert [len(message.objects) for message in made] == [2, 2, 2, 1, 1]


def test_a_message_is_an_s3_notification_with_what_is_wanted_beside_it() -> None:
    (message,) = messages([bundle(7, key="section/é 1/a+b{}.jsonl")], Backfill(replace=True))
    assert json.loads(message.body) == {
        "backfill": {"replace": True},
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": "bundles"},
                    "object": {
                        "key": "section/%C3%A9+1/a%2Bb7.jsonl",
                        "size": 12_000,
                        "eTag": "etag-7",
                    },
                },
            }
        ],
    }


WISH = "a message's backfill may hold only force_reprocess and replace, true or false"
ONLY_SQS = "backfill is allowed only in a message from SQS, beside Records"


def test_what_is_wanted_is_read_in_the_message_itself_and_nothing_else_may_be_wanted() -> None:
    """A topic's publishers are others than those who may send to the queue."""
    (made,) = messages([bundle(1)], Backfill(force_reprocess=True))
    wishes: list[Any] = [{"dry_run": True}, {"force_reprocess": "yes"}, {"replace": 1}]
    wishes += [None, [], True]
    for body, error in (
        *(({**json.loads(made.body), "backfill": wish}, WISH) for wish in wishes),
        ({"Type": "Notification", "Message": made.body}, ONLY_SQS),
    ):
        (read,) = parse_payload(sqs(a=body)).messages
        assert (read.objects, read.backfill, read.error) == ((), None, error), body
