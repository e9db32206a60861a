"""An S3 Inventory in the place of a listing. Its form is that of S3's user guide."""

from __future__ import annotations

import gc
import gzip
import hashlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest

from tests.conftest import Ask, Bucket, Invoke, until_complete
from tests.support.clocks import Clock
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import S3Late
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.bulk.selection import Step, select
from xapi_etl_processor.modes.bulk import run_bulk
from xapi_etl_processor.outcome import TIME_RAN_OUT
from xapi_etl_processor.run import Run, connections
from xapi_etl_processor.s3 import inventory as s3_inventory
from xapi_etl_processor.s3.listing import Progress
from xapi_etl_processor.s3.objects import S3Object

SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
FOLDER = "inventories/bundles/weekly"
MANIFEST = f"{FOLDER}/2024-02-01T01-00Z/manifest.json"
KEYS = [
    "section/1/video/2024-01-01T00-00-00Z_1.jsonl",
    "section/1/video/2024-01-02T00-00-00Z_é +2.jsonl",
    "section/2/quiz/no-timestamp.jsonl.gz",
    "section/2/video/2024-01-03T00-00-00Z_3.jsonl",
]
LOADED = "SELECT key FROM processed_files ORDER BY key"


def row(bucket: str, key: str, etag: str = "", latest: str = "true", deleted: str = "false") -> str:
    date = "2024-01-09T00:00:00.000Z"
    fields = [bucket, quote_plus(key), "v1", latest, deleted, "10", date, etag]
    return ",".join(f'"{field}"' for field in fields)


def put_inventory(bucket: Bucket, *files: list[str] | bytes, **changes: Any) -> None:
    """Write the manifest and its lists; a list is its rows, or its bytes."""
    named = []
    for number, rows in enumerate(files):
        key = f"{FOLDER}/data/{number}.csv.gz"
        plain = rows if isinstance(rows, bytes) else "\n".join(rows).encode()
        packed = rows if isinstance(rows, bytes) else gzip.compress(plain)
        bucket.put(key, body=packed)
        md5 = hashlib.md5(packed, usedforsecurity=False).hexdigest()
        named.append({"key": key, "size": len(packed), "MD5checksum": md5})
    manifest = {
        "sourceBucket": bucket.name,
        "destinationBucket": f"arn:aws:s3:::{bucket.name}",
        "version": "2016-11-30",
        "fileFormat": "CSV",
        "fileSchema": SCHEMA,
        "files": named,
        **changes,
    }
    bucket.put(MANIFEST, body=json.dumps(manifest).encode())


def put_bundles(bucket: Bucket) -> list[str]:
    """Write the bundles; gives their rows in an inventory."""
    rows = []
    for number, key in enumerate(KEYS):
        body = (json.dumps(video(number)) + "\n").encode()
        bucket.put(key, body=gzip.compress(body) if key.endswith(".gz") else body)
        rows.append(row(bucket.name, key))
    return rows


@pytest.mark.slow
def test_what_an_inventory_names_is_loaded_without_a_request_to_list_and_what_is_gone_is_a_failure(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    rows, gone = put_bundles(bucket), "section/1/video/gone.jsonl"
    put_inventory(bucket, [row(bucket.name, gone), *rows[:3]], rows[3:])
    answer = invoke({"mode": "bulk", "inventory": MANIFEST})
    assert (answer["files_processed"], answer["list_calls"]) == (4, 0)
    assert [failure["key"] for failure in answer["failures"]] == [gone]
    assert ask(LOADED) == [[key] for key in KEYS]
    assert invoke({"inventory": f"s3://{bucket.name}/{MANIFEST}"})["files_skipped"] == 4


@pytest.mark.slow
def test_a_request_narrows_an_inventory_to_current_versions(bucket: Bucket, invoke: Invoke) -> None:
    rows = [
        *put_bundles(bucket),
        row(bucket.name, KEYS[0], etag="0" * 32, latest="false"),
        row(bucket.name, "section/9/video/gone.jsonl", deleted="true"),
    ]
    put_inventory(bucket, rows)
    # One without a timestamp is of the day in which it was modified, by the inventory.
    modified = {"start_date": "2024-01-09", "end_date": "2024-01-09"}
    asked: list[tuple[dict[str, Any], list[str]]] = [
        ({}, KEYS),
        ({"section_id": [1, 7]}, KEYS[:2]),
        ({"categories": ["video"]}, [KEYS[0], KEYS[1], KEYS[3]]),
        ({"start_date": "2024-01-02", "end_date": "2024-01-08"}, [KEYS[1], KEYS[3]]),
        (modified, [KEYS[2]]),
        ({"s3_prefix": "section/2/video"}, [KEYS[3]]),
    ]
    for parameters, keys in asked:
        answer = invoke({"inventory": MANIFEST, "dry_run": True, **parameters})
        assert answer["files"] == keys, parameters
    # A date without a zone is in UTC.
    put_inventory(bucket, [one.replace("00:00.000Z", "00:00") for one in rows])
    assert invoke({"inventory": MANIFEST, "dry_run": True, **modified})["files"] == [KEYS[2]]


@pytest.mark.slow
def test_a_token_continues_at_the_row(
    bucket: Bucket, invoke: Invoke, ask: Ask, settings: Settings
) -> None:
    rows = put_bundles(bucket)
    put_inventory(bucket, rows[:2], rows[2:])
    clock = Clock()

    def slowly(**_: Any) -> None:
        clock.now += 6

    # Looking at an object without an etag takes six seconds.
    connections(settings).s3.boto3.meta.events.register("before-call.s3.HeadObject", slowly)
    answers = list(until_complete(invoke, {"inventory": MANIFEST}, clock=clock))
    assert answers[-1]["complete"]
    assert ask(LOADED) == [[key] for key in KEYS]


@pytest.mark.slow
def test_an_inventory_that_is_wrong_is_answered_with_400_before_a_row_is_used(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    def refused(error: str, **parameters: Any) -> None:
        answer = invoke({"mode": "bulk", "inventory": MANIFEST, **parameters})
        assert (answer.status, error in answer["error"]) == (400, True), (error, answer)

    refused("does not exist")
    refused("names no object", inventory="")
    refused("not a bucket of bundles", inventory="s3://others/manifest.json")
    refused("text is needed", inventory=7)
    refused("does not go with verify", verify=True)
    rows = put_bundles(bucket)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"fileFormat": "Parquet"}, "output format CSV"),
        ({"fileSchema": "Key, Size"}, "output format CSV"),
        ({"fileSchema": None}, "not a complete"),
        ({"files": [{"key": "a"}]}, "not a complete"),
        ({"sourceBucket": "others"}, "is about s3://others"),
        ({"files": [{"key": "a", "MD5checksum": ""}]}, "does not exist"),
    ]
    for changed, error in changes:
        put_inventory(bucket, rows, **changed)
        refused(error)
    for manifest in (b'{"sourceBucket": "', b"[]", b"\xff"):
        bucket.put(MANIFEST, body=manifest)
        refused("not a complete")
    packed = gzip.compress("\n".join(rows).encode())
    for listed in (b"Bucket, Key", gzip.compress(b'"a","b"\n')):
        put_inventory(bucket, listed)
        refused("0.csv.gz is damaged")
    put_inventory(bucket, packed)
    for changed_since in (packed[:-9], gzip.compress(rows[0].encode())):
        bucket.put(f"{FOLDER}/data/0.csv.gz", body=changed_since)
        refused("0.csv.gz is damaged")
    assert ask(LOADED) == []


def test_rows_of_other_folders_are_passed_over_for_good(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a request for a small folder would never get through a large inventory."""

    def late(_: Any, inventory: Any, *__: Any) -> Iterator[tuple[str, S3Object]]:
        yield "000000:000000000", S3Object(settings.bucket, KEYS[0])
        raise S3Late("the next list was not read in time")

    monkeypatch.setattr(s3_inventory, "read_manifest", lambda *_: None)
    monkeypatch.setattr(s3_inventory, "objects", late)
    request = read_request({"inventory": MANIFEST, "s3_prefix": "section/2/"}, settings)
    run = Run(settings, connections(settings), "bulk")
    steps = list(select(request, run, Progress()))
    assert steps == [Step("000000:000000000", stop=TIME_RAN_OUT)]


def test_rows_before_an_object_that_time_ran_out_for_are_passed_over_too(
    bucket: Bucket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]

    def rows(*_: Any) -> Iterator[tuple[str, S3Object]]:
        for number, section in enumerate((1, 2, 2)):
            now[0] += 30 * number
            key = f"section/{section}/{number}.jsonl"
            yield f"000000:{number:09}", S3Object(bucket.name, key, "etag", 1)

    monkeypatch.setattr(s3_inventory, "read_manifest", lambda *_: None)
    monkeypatch.setattr(s3_inventory, "objects", rows)
    request = read_request({"inventory": MANIFEST, "s3_prefix": "section/2/"}, settings)
    deadline = Deadline(60, lambda: now[0])
    answer = run_bulk(request, Run(settings, connections(settings), "bulk", deadline=deadline))
    assert (answer["files_processed"], answer["stopped"]) == (0, "time ran out")
    assert answer["continuation_token"] == request.token_after("000000:000000000")


def test_without_the_date_of_an_object_without_a_timestamp_days_cannot_be_wanted(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    schema = SCHEMA.replace("LastModifiedDate", "StorageClass")
    put_inventory(bucket, put_bundles(bucket), fileSchema=schema)
    days = {"inventory": MANIFEST, "start_date": "2024-01-01"}
    answer = invoke({**days, "section_id": 1})
    assert (answer["success"], answer["files_found"]) == (True, 2)
    answer = invoke(days)
    assert (answer["success"], answer["complete"]) == (False, False)
    assert f"does not say when s3://{bucket.name}/{KEYS[2]} was modified" in answer["stopped"]
    assert invoke({"inventory": MANIFEST, "section_id": 2})["files_found"] == 2


def test_what_is_passed_over_takes_no_memory(
    bucket: Bucket, invoke: Invoke, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small section may stand behind millions of other rows."""
    held = []

    def rows(*_: Any) -> Iterator[tuple[str, S3Object]]:
        for number in range(3000):
            key = "section/9/a.jsonl" if number == 2999 else f"section/7/{number}.jsonl"
            yield f"000000:{number:09}", S3Object(settings.bucket, key, "e", 1)
            if number % 1000 == 998:
                held.append(sum(type(one) is Step for one in gc.get_objects()))

    monkeypatch.setattr(s3_inventory, "read_manifest", lambda *_: None)
    monkeypatch.setattr(s3_inventory, "objects", rows)
    answer = invoke({"inventory": MANIFEST, "section_id": 9, "dry_run": True})
    assert (answer["files_found"], answer["complete"]) == (1, True)
    assert len(held) == 3
    assert max(held) < 10
