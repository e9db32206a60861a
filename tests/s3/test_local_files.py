"""Bundles on this machine's disk: loaded as objects are, and known to the ledger."""

from __future__ import annotations

import gzip
import json
import os
import time
from datetime import UTC, datetime
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import BAD_LINE, content, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import S3Error
from xapi_etl_processor.cli import main
from xapi_etl_processor.s3 import local_files, read
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object

pytestmark = pytest.mark.usefixtures("own_stream")

Printed = pytest.CaptureFixture[str]
NAME = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
AT_NOON = 1_704_110_400_000


def bundle(folder: Path, body: bytes, name: str = NAME) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    os.utime(path, (1_700_000_000, 1_700_000_000.5))
    return path


def answer(capsys: Printed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_files_time_is_the_same_moment_in_every_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle(tmp_path, content(video(1)))
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Kolkata")
        time.tzset()
        found = local_files.describe(local_files.named(str(path)))
    time.tzset()
    assert found.modified == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert found.modified_ms == 1_700_000_000_500


@pytest.mark.slow
def test_a_file_is_loaded_as_an_object_is(
    settings: Settings, ask: Ask, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = video(1)
    del silent["timestamp"]
    body = content(silent, other(1), BAD_LINE, b"")
    path = bundle(tmp_path, body)
    etag = md5(body, usedforsecurity=False).hexdigest()
    monkeypatch.delenv("S3_XAPI_BUCKET_NAME")
    monkeypatch.chdir(tmp_path)
    assert main(["event", NAME, "--dry-run"]) == 0
    assert answer(capsys)["video_events_processed"] == 1
    assert ask("SELECT count() FROM video_events") == [[0]]
    assert main(["event", NAME]) == 0
    found = answer(capsys)
    assert (found["section_id"], found["files_processed"], found["s3_key"]) == (2001, 1, str(path))
    assert ask(
        "SELECT source_file, source_etag, section, toUnixTimestamp64Milli(timestamp),"
        " timestamp_source, row_version FROM video_events"
    ) == [[f"file://{path}", etag, "2001", AT_NOON, "key", 1_700_000_000_500]]
    assert ask("SELECT source_file FROM rejected_statements") == [[f"file://{path}"]]
    assert ask("SELECT bucket, key, etag, size, lines, video FROM processed_files") == [
        ["", str(path), etag, len(body), 4, 1]
    ]


@pytest.mark.slow
def test_however_a_file_is_named_it_is_loaded_once_until_it_is_changed(
    settings: Settings, ask: Ask, tmp_path: Path, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle(tmp_path, content(video(1)))
    (tmp_path / "link").symlink_to(path.parent)
    monkeypatch.chdir(path.parent)
    names = [str(path), path.name, f"../video/{path.name}", f"{tmp_path}/link/{path.name}"]
    for number, name in enumerate([*names, f"file://{path}"]):
        assert main(["event", name]) == 0
        assert answer(capsys)["files_skipped"] == min(number, 1), name
    path.write_bytes(content(video(1), video(2)))
    assert main(["event", str(path)]) == 0
    assert answer(capsys)["files_skipped"] == 0
    assert ask("SELECT count() FROM video_events FINAL") == [[2]]
    assert ask("SELECT DISTINCT key FROM processed_files") == [[str(path)]]


@pytest.mark.slow
def test_files_and_objects_can_be_named_together_and_keep_their_order(
    settings: Settings, bucket: Bucket, ask: Ask, tmp_path: Path, capsys: Printed
) -> None:
    first = bundle(tmp_path, gzip.compress(content(video(1), video(2))), "b.gz")
    last = bundle(tmp_path, content(video(4)), "c.txt")
    key = bucket.put("section/1/video/a.jsonl", video(3))
    assert main(["event", str(first), bucket.uri(key), str(last)]) == 0
    assert [one["status"] for one in answer(capsys)["files"]] == ["processed"] * 3
    assert ask("SELECT source_file, count() FROM video_events GROUP BY 1 ORDER BY 2, 1") == [
        [f"file://{last}", 1],
        [bucket.uri(key), 1],
        [f"file://{first}", 2],
    ]
    named = (local_files.named(str(first)), S3Object(bucket.name, key))
    described = read.describe(Stores(), [*named, local_files.named(str(last))])
    assert [o.key for o in described] == [str(first), key, str(last)]
    assert all(o.etag and o.size for o in described)
    found = [(o.key, b"".join(body)) for o, body in read.bodies(Stores(), described)]
    assert [name for name, _ in found] == [o.key for o in described]
    assert found[2][1] == content(video(4))


def test_nothing_is_done_if_one_of_the_names_is_none_and_a_broken_file_is_named(
    settings: Settings, ask: Ask, tmp_path: Path, capsys: Printed
) -> None:
    path = bundle(tmp_path, content(video(1)))
    assert main(["event", str(path), str(tmp_path / "gone.jsonl")]) == 2
    assert "gone.jsonl cannot be read (No such file or directory)" in capsys.readouterr().err
    assert main(["event", str(path), str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    broken = bundle(tmp_path, b"\x1f\x8b broken", "b.jsonl.gz")
    assert main(["event", str(broken)]) == 1
    assert f"file://{broken}: gzip stream is damaged" in answer(capsys)["failures"][0]["error"]
    assert ask("SELECT count() FROM video_events") == [[0]]


def test_no_payload_can_name_a_file(
    settings: Settings, invoke: Invoke, ask: Ask, tmp_path: Path
) -> None:
    path = bundle(tmp_path, content(video(1)))
    for named in (
        {"bucket": "", "key": str(path)},
        {"bucket": "file:", "key": str(path)},
        {"bucket": settings.bucket, "key": f"file://{path}"},
    ):
        assert invoke(named).status == 400
    assert ask("SELECT count() FROM processed_files") == [[0]]


def test_a_file_that_is_changed_while_it_is_read_fails(tmp_path: Path) -> None:
    path = bundle(tmp_path, content(video(1)))
    found = local_files.describe(local_files.named(str(path)))
    path.write_bytes(content(video(2)))
    with pytest.raises(S3Error, match="was changed while it was read"):
        list(local_files.body(found))
    path.unlink()
    with pytest.raises(S3Error, match=r"cannot be read: No such file or directory"):
        list(local_files.body(found))
    assert local_files.describe(found) == found
