"""What writers upload: gzip bombs, endless lines, deep nesting, objects that are not bundles."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults import child
from tests.support.samples import BAD_LINE, event_id, notification, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import EventFailed
from xapi_etl_processor.pipeline import batch
from xapi_etl_processor.s3 import bundle
from xapi_etl_processor.xapi import lines
from xapi_etl_processor.xapi.decode import MAX_DEPTH

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
    message = child.start(
        {
            "Records": [
                {
                    "messageId": "m",
                    "eventSource": "aws:sqs",
                    "body": json.dumps(notification(bucket.name, KEY + ".gz")),
                }
            ]
        },
        **{child.LIMIT: "600"},
    )
    assert child.body_of(message) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
    assert ask("SELECT count() FROM processed_files") == [[0]]


@pytest.mark.slow
@pytest.mark.fault(57, caught_by="limits on the unpacked size")
@pytest.mark.check("S13")
@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_UNPACKED_RATIO", 200, "more than 200 times its size: .*upload it unpacked"),
        ("MAX_UNPACKED_BYTES", 50 * MIB, "more than 50 MiB: split the object"),
    ],
)
def test_gzip_over_a_limit_fails_and_within_it_is_stored(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    message: str,
) -> None:
    body = gzip.compress(
        json.dumps(video(1)).encode() + b"\n" + (b" " * 1023 + b"\n") * 80 * 1024, 9
    )
    bucket.put(KEY + ".gz", body=body)
    monkeypatch.setattr(lines, "MAX_UNPACKED_RATIO", 2000)
    monkeypatch.setattr(lines, limit, value)
    with pytest.raises(EventFailed, match=rf"{KEY}\.gz: gzip unpacks to {message}"):
        invoke(notification(bucket.name, KEY + ".gz"))
    assert ask("SELECT count() FROM processed_files") == [[0]]
    monkeypatch.setattr(lines, "MAX_UNPACKED_RATIO", 2000)
    monkeypatch.setattr(lines, "MAX_UNPACKED_BYTES", 100 * MIB)
    assert invoke(notification(bucket.name, KEY + ".gz"))["blank_lines"] == 80 * 1024
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
@pytest.mark.fault(53, caught_by="nesting limit")
@pytest.mark.check("S13")
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_nesting_has_a_limit(
    bucket: Bucket, invoke: Invoke, ask: Ask, brackets: tuple[str, str]
) -> None:
    def nested(number: int, depth: int) -> bytes:
        # The statement itself is the outermost object.
        value = brackets[0] * (depth - 1) + "1" + brackets[1] * (depth - 1)
        return json.dumps(video(number)).encode()[:-1] + b', "deep": %b}' % value.encode()

    in_text = video(5, note="[{" * 1000)
    lines = [nested(n, depth) for n, depth in enumerate((MAX_DEPTH, MAX_DEPTH + 1, 100_000))]
    bucket.put(KEY, *lines, in_text)
    answer = invoke(notification(bucket.name, KEY))
    assert (answer["video_events_processed"], answer["rejected_lines"]) == (2, 2)
    assert ask(REASONS) == [[n, "nested more than 128 deep"] for n in (2, 3)]


@pytest.mark.slow
@pytest.mark.check("S13")
def test_a_batch_of_long_lines_is_limited_in_bytes(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch, "BATCH_BYTES", MIB)
    bucket.put(KEY, *(video(n, padding="x" * 200_000) for n in range(20)))
    inserts: list[str] = []
    clickhouse.hook = lambda point, sql: (
        inserts.append(sql) if point == "insert" and ".video_events " in sql else None
    )
    assert invoke(notification(bucket.name, KEY))["video_events_processed"] == 20
    assert 3 <= len(inserts) <= 5
    assert ask("SELECT count() FROM video_events FINAL") == [[20]]


@pytest.mark.slow
@pytest.mark.fault(59, caught_by="an object without a statement fails")
@pytest.mark.parametrize(
    "body",
    [
        BAD_LINE + b"\n" + BAD_LINE,
        b"\n\n" + BAD_LINE + b"\n\n",
        json.dumps(video(1)).encode("utf-16"),
        b"id,actor,verb\n1,2,3\n",
        json.dumps([video(1)]).encode(),
        json.dumps(video(1), indent=2).encode(),
    ],
    ids=[
        "bad lines",
        "bad and blank lines",
        "UTF-16",
        "CSV",
        "a JSON array",
        "JSON over many lines",
    ],
)
def test_an_object_without_a_single_statement_fails(
    bucket: Bucket, settings: Settings, invoke: Invoke, ask: Ask, body: bytes
) -> None:
    bucket.put(KEY, body=body)
    with pytest.raises(
        EventFailed, match="none of its lines is a statement.*: see rejected_statements"
    ):
        invoke(notification(bucket.name, KEY))
    assert ask("SELECT count() FROM processed_files") == [[0]]
    kept = ask("SELECT count() FROM rejected_statements FINAL")
    assert kept[0][0] > 0
    # However often it is delivered, what is kept of it stays the same.
    with pytest.raises(EventFailed):
        invoke(notification(bucket.name, KEY))
    assert ask("SELECT count() FROM rejected_statements FINAL") == kept
    bucket.put(KEY, body=body + b"\n" + json.dumps(other(1)).encode())
    assert invoke(notification(bucket.name, KEY))["other_events"] == 1


@pytest.mark.fault(56, caught_by="an object without a statement fails")
def test_a_zstandard_object_fails_as_not_a_bundle(bucket: Bucket, invoke: Invoke, ask: Ask) -> None:
    # A frame of one raw block (RFC 8878, section 3.1.1).
    text = json.dumps(video(1)).encode()[:200] + b"\n"
    header = b"\x28\xb5\x2f\xfd\x20" + bytes([len(text)])
    block = ((len(text) << 3) | 1).to_bytes(3, "little")
    bucket.put(KEY, body=header + block + text)
    with pytest.raises(EventFailed, match="none of its lines is a statement.*it is not a bundle"):
        invoke(notification(bucket.name, KEY))
    assert ask("SELECT count() FROM video_events") == [[0]]


@pytest.mark.fault(58, caught_by="line counts that must add up")
@pytest.mark.parametrize(
    ("body", "counts"),
    [
        (b"", [0] * 5),
        (b"\xef\xbb\xbf", [0] * 5),
        (b" \n\t\r\n", [2, 0, 0, 2, 0]),
        (None, [3, 0, 3, 0, 0]),
    ],
    ids=["empty", "byte order mark", "blank", "no video"],
)
def test_an_object_without_video_statements_succeeds_with_its_counts(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    body: bytes | None,
    counts: list[int],
) -> None:
    bucket.put(KEY, *(other(n) for n in range(3))) if body is None else bucket.put(KEY, body=body)
    inserted: list[Any] = []
    clickhouse.hook = lambda point, sql: (
        inserted.append(sql.split(" (")[0].rpartition(".")[2]) if point == "insert" else None
    )
    assert invoke(notification(bucket.name, KEY))["success"] is True
    assert inserted == ["processed_files"]
    assert ask(LEDGER) == [counts]
    assert invoke(notification(bucket.name, KEY))["files_skipped"] == 1


@pytest.mark.slow
@pytest.mark.check("S14")
@pytest.mark.parametrize("name", ["dry_run", "force_reprocess"])
@pytest.mark.parametrize("value", ["false", "true", 0, 1, "", [], "no"])
@pytest.mark.parametrize("mode", ["bulk", "event"])
def test_a_flag_must_be_true_or_false_and_nothing_similar(
    bucket: Bucket, invoke: Invoke, ask: Ask, name: str, value: object, mode: str
) -> None:
    bucket.put(KEY, video(1))
    payload = {"mode": "bulk"} if mode == "bulk" else {"bucket": bucket.name, "key": KEY}
    answer = invoke({**payload, name: value})
    assert (answer.status, name in answer["error"]) == (400, True)
    assert ask("SELECT count() FROM video_events") == [[0]]
