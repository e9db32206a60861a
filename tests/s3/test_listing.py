"""Listing: every key that a request covers, in order, and few requests for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import md5
from itertools import product
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from tests.conftest import Bucket, Invoke, forget_connections, small_pages, until_complete
from tests.faults.http_proxy import Answer, Request, Rule, S3Proxy
from tests.support.clocks import Clock
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import S3Late
from xapi_etl_processor.bulk.request import BulkRequest, read_request
from xapi_etl_processor.bulk.selection import select
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3 import listing
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DAYS = ["2024-01-01", "2024-02-29", "2024-03-01", "2024-03-15", "2024-12-15"]
USUAL = [
    f"section/{section}/{category}/{day}T{hour}-00-00Z_{hour}.jsonl"
    for section, category, day, hour in product((1, 10, 2), ("quiz", "video"), DAYS, ("08", "20"))
]
UNUSUAL = [
    "section/no-section.jsonl",
    "section/no-section.jsonl.gz",
    "section/1/no-category.jsonl",
    "section/1/2024-03-01T00-00-00Z_no-category.jsonl",
    "section/1/video/!before-all-days.jsonl",
    "section/1/video/2024-03-02.jsonl",
    "section/1/video/2024-03-15-noon.jsonl",
    "section/1/video/2024-03-15T.jsonl",
    "section/1/video/2024-03-15T080000Z_8.jsonl",
    "section/1/video/2024-03-15T24-00-00Z_8.jsonl",
    "section/1/video/2024-03-31T24-00-00Z_8.jsonl",
    "section/1/2024-03-02T10-00-00Z/2024-03-20T08-00-00Z_8.jsonl",
    "section/1/2024-03-02T10-00-00Z/part-1.jsonl",
    "section/1/2024-03-20T10-00-00Z/2024-03-02T08-00-00Z_8.jsonl",
    "section/1/2024-03-20T10-00-00Z/part-1.jsonl",
    "section/1/video/2024-13-32T08-00-00Z_8.jsonl",
    "section/1/video/2024-03-15T08-00-00Z_8.jsonl.gz",
    "section/1/video/2024-03-15t08-00-00Z_8.jsonl",
    "section/1/video/2024/03/15/2024-03-15T08-00-00Z_8.jsonl",
    "section/1/video/2024/no-timestamp.jsonl",
    "section/1/video/a-The-first.jsonl",
    "section/1/video/a-first.jsonl",
    "section/1/video/a-first.jsonl.gz",
    "section/10/Tests/2024-03-15T08-00-00Z_8.jsonl",
    "section/10/Tests/x.jsonl",
    *(f"section/10/video/{letter}T{letter}.jsonl" for letter in "abcdefghijklmnopqrst"),
    "section/2024-03-15T/video/2024-03-15T08-00-00Z_8.jsonl",
    "section/CAT-T/video/2024-03-15T08-00-00Z_8.jsonl",
    "section/2/video/",
    "section/section/video/2024-03-15T08-00-00Z_8.jsonl",
    "section/section/video/video/2024-03-15T08-00-00Z_8.jsonl",
    "section/2/video/2024-03-15T08-00-00Z_ü?é.jsonl",
    "sectionless/2024-03-15T08-00-00Z_8.jsonl",
]
SCOPES: list[dict[str, Any]] = [
    {},
    {"section_id": 1},
    {"section_id": [1, 10]},
    {"section_id": ["CAT-T", 2]},
    {"categories": ["video"]},
    {"section_id": 10, "categories": ["Tests", "quiz"]},
    {"section_id": 1, "categories": ["2024-03-20T10-00-00Z", "video"]},
    {"s3_prefix": "section/1/2024-03-02T10-00-00Z/"},
    {"section_id": "section", "categories": ["video"]},
    {"section_id": "section", "s3_prefix": "section/section/"},
    {"s3_prefix": "section/section/", "categories": ["video"]},
    {"s3_prefix": "section/1/video/2024/"},
    {"s3_prefix": ""},
    {"s3_prefix": "", "section_id": [1, 2], "categories": ["video"]},
]
PERIODS: list[dict[str, str]] = [
    {},
    {"start_date": "2024-03-01", "end_date": "2024-03-15"},
    {"start_date": "2024-12-15"},
    {"end_date": "2024-01-01"},
    {"start_date": "2020-01-01", "end_date": "2020-12-31"},
    {"start_date": "2026-01-01"},
]


@pytest.fixture(name="settings")
def _settings(settings: Settings) -> Settings:
    return replace(settings, prefix="")


@pytest.fixture(name="objects", scope="module")
def _objects(platform: S3Client) -> list[S3Object]:
    """What is in a bucket that all tests share, in order."""
    bucket = Bucket(f"bundles-{uuid4().hex[:12]}", platform)
    platform.create_bucket(Bucket=bucket.name)
    keys = sorted([*USUAL, *UNUSUAL])
    for key in keys:
        bucket.put(key, body=b"")
    objects = list(listing.listing(Stores(), listing.Scope(bucket.name)))
    assert [obj.key for obj in objects] == keys
    return objects


@pytest.fixture
def many(objects: list[S3Object], settings: Settings) -> Settings:
    """Settings for the bucket of all these objects."""
    return replace(settings, bucket=objects[0].bucket)


def request_for(settings: Settings, **parameters: Any) -> BulkRequest:
    return read_request({"s3_prefix": "section/", **parameters}, settings)


def found(settings: Settings, request: BulkRequest) -> list[str]:
    run = Run(settings, connections(settings), "bulk")
    steps = select(request, run, listing.Progress())
    return [step.obj.key for step in steps if step.obj]


def covered(request: BulkRequest, objects: list[S3Object]) -> list[str]:
    """The keys that a request covers, each looked at by itself."""
    return [o.key for o in objects if o.key.startswith(request.prefix) and request.covers(o)]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "stride"), [(7, 11), pytest.param(1000, 5, marks=pytest.mark.ci)])
def test_every_covered_key_is_found_once_and_in_order(
    objects: list[S3Object], many: Settings, page: int, stride: int
) -> None:
    small_pages(many, page)
    some = 0
    for scope, period in list(product(SCOPES, PERIODS))[::stride]:
        request = request_for(many, **scope, **period)
        wanted = covered(request, objects)
        assert found(many, request) == wanted, (scope, period)
        some += bool(wanted)
    assert some > 2


@pytest.mark.slow
def test_a_listing_continues_after_any_key(objects: list[S3Object], many: Settings) -> None:
    march = {"start_date": "2024-03-01", "end_date": "2024-03-15"}
    request = request_for(many, section_id=[1, 10, "CAT-T"], **march)
    wanted = covered(request, objects)
    assert len(wanted) > 20
    for number, key in list(enumerate(wanted))[::24]:
        assert found(many, replace(request, after=key)) == wanted[number + 1 :], key


WEEK = {"start_date": "2024-01-08", "end_date": "2024-01-14"}


@pytest.mark.slow
def test_requests_to_s3_are_few_and_are_counted(bucket: Bucket, invoke: Invoke) -> None:
    for section, category, day in product((1, 2, 3), ("quiz", "video"), range(7, 17, 3)):
        name = f"section/{section}/{category}/2024-01-{day:02}T00-00-00Z_1.jsonl"
        bucket.put(name, body=b"")
    expected: list[tuple[dict[str, Any], int]] = [
        # Without dates: the keys themselves, 1,000 for each request.
        ({}, 1),
        ({"section_id": 2}, 1),
        # The section's days, and a list for each category.
        ({"section_id": 2, **WEEK}, 1 + 2),
        ({"section_id": 2, "start_date": "2025-01-01"}, 1),
        ({"section_id": 2, **WEEK, "categories": ["video"]}, 1 + 1),
        ({"section_id": [1, 3], "categories": ["video"]}, 2),
        # The sections, and the same for each.
        (WEEK, 1 + 3 * (1 + 2)),
        ({"section_id": "all", "categories": ["quiz", "none"]}, 1 + 3 * 2),
    ]
    for parameters, requests in expected:
        answer = invoke({"mode": "bulk", "dry_run": True, **parameters})
        assert answer["list_calls"] == requests, parameters


@pytest.mark.slow
def test_sections_without_a_covered_object_are_not_listed_again(
    bucket: Bucket, invoke: Invoke, settings: Settings
) -> None:
    """Otherwise a request for a day that few sections have would never end."""
    for section in range(10, 30):
        bucket.put(f"section/{section}/video/2024-01-01T00-00-00Z_1.jsonl", body=b"")
    clock = Clock()
    stores = connections(settings).s3

    def slowly(**_: Any) -> None:
        clock.now += 1

    stores.boto3.meta.events.register("before-parameter-build.s3.ListObjectsV2", slowly)
    request = {"start_date": "2025-01-01"}
    answers = list(until_complete(invoke, request, seconds_left=20, clock=clock))
    assert {(answer["success"], answer["files_found"]) for answer in answers} == {(True, 0)}
    assert len(answers) < 10


def test_a_request_without_an_end_covers_every_day_from_its_first(settings: Settings) -> None:
    request = request_for(settings, start_date="2024-01-01")
    days = [datetime(*day, tzinfo=UTC) for day in ((2023, 12, 31), (2024, 1, 1), (9999, 12, 31))]
    written = [S3Object("b", "section/1/video/a.jsonl", modified=day) for day in days]
    assert [request.covers(one) for one in written] == [False, True, True]


def test_a_listing_of_the_whole_bucket_continues_after_any_first_character(
    bucket: Bucket, settings: Settings
) -> None:
    keys = [" b.jsonl", "a.jsonl", "\U0010ffff/1.jsonl", "\U0010ffff/2.jsonl"]
    for key in keys:
        bucket.put(key, body=b"")
    for number in (0, 2):
        request = replace(request_for(settings, s3_prefix=""), after=keys[number])
        assert found(settings, request) == keys[number + 1 :]


def test_a_listing_that_has_ended_asks_no_more(bucket: Bucket, settings: Settings) -> None:
    for number in range(3):
        bucket.put(f"section/1/video/2024-01-0{number + 1}T00-00-00Z_1.jsonl", body=b"")
    small_pages(settings, 1)
    ended, second, asked = Event(), Event(), []

    def wait_at_first(**_: Any) -> None:
        asked.append(1)
        if len(asked) == 1:
            ended.wait()
        else:
            second.set()

    stores = connections(settings).s3
    stores.boto3.meta.events.register("before-call.s3.ListObjectsV2", wait_at_first)
    passed = Deadline(0.0, lambda: 1.0)
    scope = listing.Scope(bucket.name, "section/1/", days=("", ":"))
    with pytest.raises(S3Late):
        list(listing.listing(stores, scope, "", passed))
    ended.set()
    assert not second.wait(0.2)


def by_hash(name: str) -> bytes:
    return md5(name.encode(), usedforsecurity=False).digest()


def listing_of(keys: list[str], page: int, order: Callable[[str], Any] = str) -> Rule:
    """A store with these keys, which begins behind the group that `start-after` is in, as S3 may;
    its order may be none, as in stores that imitate S3.
    """

    def listed(request: Request) -> Answer | None:
        asked = {k: v[0] for k, v in parse_qs(urlsplit(request.path).query).items()}
        if "list-type" not in asked:
            return None
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        after = asked.get("start-after", "")
        names = [key for key in keys if key.startswith(prefix) and key > after]
        if delimiter:
            names = [prefix + delimiter.join(n[len(prefix) :].split(delimiter)[:1]) for n in names]
            names = [f"{name}{delimiter}" for name in dict.fromkeys(names)]
        names = sorted((name for name in names if name > after), key=order)
        start = int(asked.get("continuation-token", 0))
        entry = (
            "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"
            if delimiter
            else "<Contents><Key>{}</Key><ETag>e</ETag><Size>1</Size>"
            "<LastModified>2024-01-01T00:00:00Z</LastModified></Contents>"
        )
        more = start + page < len(names)
        token = f"<NextContinuationToken>{start + page}</NextContinuationToken>" if more else ""
        body = "".join(map(entry.format, names[start : start + page]))
        return Answer(
            body=f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}"
            "</ListBucketResult>".encode()
        )

    return listed


@pytest.mark.slow
def test_a_day_is_continued_after_any_of_its_keys_and_the_days_behind_it_are_not_listed(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    """One request names the nine days. Each page of ten keys is passed on once the next is there:
    the day's, the first one behind them, and another.
    """
    keys = [
        f"section/1/video/2024-01-{day:02}T00-00-{second:02}Z_1.jsonl"
        for day, second in product(range(1, 10), range(10))
    ]
    store.rule = listing_of(keys, 10)
    asked = {"section_id": 1, "start_date": "2024-01-02", "end_date": "2024-01-02"}
    answer = invoke({"mode": "bulk", "dry_run": True, **asked})
    assert (answer["files"], answer["list_calls"]) == (keys[10:20], 1 + 3)
    settings = Settings.from_env(os.environ)
    request = replace(request_for(settings, **asked), after=keys[14])
    assert found(settings, request) == keys[15:20]


@pytest.mark.slow
@pytest.mark.fault(77, caught_by="the order of pages is checked")
def test_a_store_that_lists_out_of_order_is_named_and_nothing_counts_as_complete(
    bucket: Bucket, store: S3Proxy, invoke: Invoke
) -> None:
    keys = [
        f"section/{section}/video/2024-01-{day:02}T00-00-00Z_1.jsonl"
        for section, day in product(range(1, 9), range(1, 9))
    ]
    store.rule = listing_of(keys, 3, by_hash)
    scopes: list[dict[str, Any]] = [
        {},
        {"section_id": 3},
        {"section_id": "all", "categories": ["video"]},
        {"start_date": "2024-01-01", "end_date": "2024-01-31"},
        {"section_id": 3, "end_date": "2024-12-31"},
    ]
    for scope in scopes:
        answer = invoke({"mode": "bulk", "dry_run": True, **scope})
        # A token could lead past keys that were not named yet.
        named = (answer.status, set(answer.body))
        assert named == (400, {"success", "processing_mode", "error"}), scope
        assert f"s3://{bucket.name}/section/" in answer["error"]
        assert "name them" in answer["error"]
    # Where one page names everything, the order does not matter.
    store.rule = listing_of(keys[:8], 1000, by_hash)
    for scope in ({}, {"section_id": 1, "start_date": "2024-01-01"}):
        answer = invoke({"mode": "bulk", "dry_run": True, **scope})
        assert (answer["files_found"], answer["complete"]) == (8, True)


def test_a_directory_bucket_is_refused_by_name(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", "bundles--use1-az4--x-s3")
    forget_connections()
    answer = invoke({"mode": "bulk"})
    assert answer.status == 400
    assert "bundles--use1-az4--x-s3 is a directory bucket" in answer["error"]
