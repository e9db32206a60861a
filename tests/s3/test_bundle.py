"""What writers upload: gzip bombs, endless lines, deep nesting, objects that are not bundles."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults import child
from tests.support.samples import BAD_LINE, event_id, notification, other, sqs, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.xapi import lines

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"
LEDGER = "SELECT lines, video, other, blank, rejected FROM processed_files FINAL"
REASONS = "SELECT source_line, reason FROM rejected_statements FINAL ORDER BY source_line"
MIB = 1024**2


def zeros(mebibytes: int) -> bytes:
    """A gzip stream of this many MiB of zeros, packed a thousand times smaller."""
    return gzip.compress(bytes(16 * MIB), 9) * (mebibytes // 16)


@pytest.mark.slow
@pytest.mark.fault(57, caught_by="limits on the unpacked size")
@pytest.mark.check("S13")
def test_a_gzip_bomb_fails_at_once_and_in_little_memory(
    bucket: Bucket, settings: Settings, ask: Ask
) -> None:
    # It starts like a bundle: without a limit it would be processed, with one rejected line.
    bomb = gzip.compress(json.dumps(video(1)).encode() + b"\n") + zeros(1024)
    assert len(bomb) < 1.1 * MIB
    bucket.put(KEY + ".gz", body=bomb)
    # The unpacked 1 GiB does not fit into the 600 MiB that the process may add.
    message = child.start(sqs(m=notification(bucket.name, KEY + ".gz")), **{child.LIMIT: "600"})
    assert child.body_of(message) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    assert ask("SELECT count() FROM processed_files") == [[0]]


@pytest.mark.slow
@pytest.mark.fault(57, caught_by="limits on the unpacked size")
@pytest.mark.check("S13")
def test_gzip_over_a_limit_fails_and_within_it_is_stored(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = gzip.compress(
        json.dumps(video(1)).encode() + b"\n" + (b" " * 1023 + b"\n") * 8 * 1024, 9
    )
    bucket.put(KEY + ".gz", body=body)
    monkeypatch.setattr(lines, "FREE_BYTES", MIB)
    monkeypatch.setattr(lines, "MAX_UNPACKED_RATIO", 200)
    with pytest.raises(EventFailed, match="gzip unpacks to more than 200 times its size: .*unpack"):
        invoke(notification(bucket.name, KEY + ".gz"))
    monkeypatch.setattr(lines, "MAX_UNPACKED_RATIO", 2000)
    monkeypatch.setattr(lines, "MAX_UNPACKED_BYTES", 5 * MIB)
    with pytest.raises(EventFailed, match=rf"{KEY}\.gz: gzip unpacks to more than 5 MiB: split"):
        invoke(notification(bucket.name, KEY + ".gz"))
    assert ask("SELECT count() FROM processed_files") == [[0]]
    monkeypatch.setattr(lines, "MAX_UNPACKED_BYTES", 10 * MIB)
    assert invoke(notification(bucket.name, KEY + ".gz"))["blank_lines"] == 8 * 1024
    assert ask("SELECT event_id FROM video_events FINAL") == [[event_id(1)]]


@pytest.mark.slow
@pytest.mark.check("S13")
def test_an_object_that_is_too_large_fails_before_it_is_read(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_OBJECT_BYTES", MIB)
    bucket.put(KEY, video(1), b" " * MIB)
    with pytest.raises(EventFailed, match=r"has \d+ bytes, more than 1 MiB: split it"):
        invoke(notification(bucket.name, KEY))
    longest = json.dumps(video(2)).encode()
    bucket.put(KEY, body=longest + b" " * (MIB - len(longest)))
    assert invoke(notification(bucket.name, KEY))["files_processed"] == 1
    assert ask("SELECT event_id FROM video_events") == [[event_id(2)]]


@pytest.mark.slow
@pytest.mark.fault(54, caught_by="line length limit")
@pytest.mark.check("S13")
def test_a_line_that_is_too_long_is_rejected_and_the_next_one_is_stored(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_LINE_BYTES", MIB)
    fitting = json.dumps(video(3, padding="")).encode()
    fitting = fitting.replace(b'"padding": ""', b'"padding": "%b"' % (b"x" * (MIB - len(fitting))))
    assert len(fitting) == MIB
    bucket.put(KEY, video(1), b"y" * (3 * MIB), video(2), fitting, fitting + b" ")
    answer = invoke(notification(bucket.name, KEY))
    assert (answer["video_events_processed"], answer["rejected_lines"]) == (3, 2)
    assert ask(REASONS) == [[n, "line is longer than 1048576 bytes"] for n in (2, 5)]
    # What is kept of a rejected line is limited too.
    assert ask("SELECT max(length(line)) FROM rejected_statements") == [[4096]]


@pytest.mark.slow
@pytest.mark.fault(56, 59, caught_by="an object without a statement fails")
def test_an_object_without_a_single_statement_fails(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    # Zstandard: a frame of one raw block (RFC 8878, section 3.1.1).
    text = json.dumps(video(1)).encode()[:200] + b"\n"
    block = ((len(text) << 3) | 1).to_bytes(3, "little")
    bodies = {
        "bad lines": BAD_LINE + b"\n" + BAD_LINE,
        "bad and blank lines": b"\n\n" + BAD_LINE + b"\n\n",
        "UTF-16": json.dumps(video(1)).encode("utf-16"),
        "CSV": b"id,actor,verb\n1,2,3\n",
        "a JSON array": json.dumps([video(1)]).encode(),
        "JSON over many lines": json.dumps(video(1), indent=2).encode(),
        "Zstandard": b"\x28\xb5\x2f\xfd\x20" + bytes([len(text)]) + block + text,
    }
    of_it = "FROM rejected_statements WHERE source_file"
    for name, body in bodies.items():
        key = bucket.put(f"section/1/{name}.jsonl", body=body)
        kept = []
        # A second delivery keeps the same lines, and no more.
        for _ in range(2):
            with pytest.raises(EventFailed, match="none of its lines is a statement.*`explain`"):
                invoke(notification(bucket.name, key))
            kept.append(ask(f"{REASONS}, source_file"))
        assert kept[0] == kept[1], name
        assert ask(f"SELECT count() > 0 {of_it} = '{bucket.uri(key)}'") == [[1]], name
        assert ask("SELECT count() FROM processed_files") == [[0]], name
    assert ask("SELECT count() FROM video_events") == [[0]]
    bucket.put(key, body=body + b"\n" + json.dumps(other(1)).encode())
    assert invoke(notification(bucket.name, key))["other_events"] == 1


@pytest.mark.slow
@pytest.mark.fault(58, caught_by="line counts must add up")
def test_an_object_without_video_statements_succeeds_with_its_counts(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    inserted: list[Any] = []
    clickhouse.hook = lambda point, sql: (
        inserted.append(sql.split(" (")[0].rpartition(".")[2]) if point == "insert" else None
    )
    no_video = b"".join(json.dumps(other(n)).encode() + b"\n" for n in range(3))
    for name, body, counts in (
        ("empty", b"", [0] * 5),
        ("byte order mark", b"\xef\xbb\xbf", [0] * 5),
        ("blank", b" \n\t\r\n", [2, 0, 0, 2, 0]),
        ("no video", no_video, [3, 0, 3, 0, 0]),
    ):
        inserted.clear()
        key = bucket.put(f"section/1/{name}.jsonl", body=body)
        assert invoke(notification(bucket.name, key))["success"] is True
        assert inserted == ["processed_files"], name
        assert ask(f"{LEDGER} WHERE key = '{key}'") == [counts], name
        assert invoke(notification(bucket.name, key))["files_skipped"] == 1, name
