"""What the process runs with: little memory, another time zone."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from tests.conftest import Ask, Bucket
from tests.faults import child
from tests.faults.drill_servers import Server
from tests.support.samples import event_id, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

pytestmark = pytest.mark.slow

KEY = "section/1/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.mark.ci
@pytest.mark.fault(65, caught_by="memory bounded by one batch; row identity")
def test_an_object_is_loaded_whole_after_a_process_ran_out_of_memory(
    bucket: Bucket, settings: Settings, ask: Ask
) -> None:
    noise = random.Random(1)
    lines = [
        json.dumps(video(n, padding=noise.randbytes(500).hex())).encode() + b"\n"
        for n in range(40_000)
    ]
    bucket.put(KEY, body=b"".join(lines))
    payload = {"bucket": bucket.name, "key": KEY}
    small = child.start(payload, **{child.LIMIT: "30"})
    with pytest.raises(AssertionError):
        child.body_of(small)
    assert ask("SELECT count() FROM processed_files") == [[0]]
    # 54 MB of lines, in 640 MiB more than the process has at its start. Threads are included, those
    # of obstore too, and each may reserve 64 MiB of addresses.
    enough = child.start(payload, **{child.LIMIT: "640"})
    assert child.body_of(enough)["video_events_processed"] == 40_000
    counted = "SELECT count(), uniqExact(event_id) FROM video_events FINAL"
    assert ask(counted) == [[40_000, 40_000]]


# Calculated by hand. 2024-03-10 has 23 hours in New York.
WRITTEN = {
    "2024-03-10T02:30:00.001Z": 1_710_037_800_001,
    "2024-03-10T02:30:00.999-05:00": 1_710_055_800_999,
    "1970-01-01T00:00:00.001Z": 1,
    "2024-12-31T23:59:59.999+05:45": 1_735_668_899_999,
}
STORED = "SELECT event_id, toString(toUnixTimestamp64Milli(timestamp)) FROM {} ORDER BY 1"


ZONES = ["America/New_York", pytest.param("Pacific/Kiritimati", marks=pytest.mark.ci)]


@pytest.mark.fault(47, caught_by="inclusive UTC days")
@pytest.mark.fault(64, caught_by="timestamps are milliseconds UTC")
@pytest.mark.parametrize("zone", ZONES)
def test_milliseconds_and_a_backfills_days_are_those_of_utc_in_every_time_zone(
    bucket: Bucket, settings: Settings, ask: Ask, zone: str
) -> None:
    bucket.put(KEY, *(video(n, timestamp=text) for n, text in enumerate(WRITTEN)))
    inside = ["2024-02-29T00-00-00Z_1", "2024-02-29T23-59-59Z_2"]
    bucket.put_each(
        *(f"section/1/video/{name}.jsonl" for name in inside),
        "section/1/video/2024-02-28T23-59-59Z_3.jsonl",
        "section/1/video/2024-03-01T00-00-00Z_4.jsonl",
    )
    days = {"start_date": "2024-02-29", "end_date": "2024-02-29", "dry_run": True}
    loader = child.waiting({"TZ": zone})
    loaded = child.parsed(child.ask(loader, {"bucket": bucket.name, "key": KEY}))
    assert loaded["video_events_processed"] == 4
    found = child.parsed(child.ask(loader, days))
    assert found["files"] == [f"section/1/video/{name}.jsonl" for name in inside]
    loader.communicate()
    assert ask(STORED.format("video_events")) == [
        [event_id(n), str(ms)] for n, ms in enumerate(WRITTEN.values())
    ]


@pytest.mark.ci
@pytest.mark.fault(64, caught_by="timestamps are milliseconds UTC")
def test_milliseconds_are_exact_on_a_server_in_another_time_zone(
    bucket: Bucket, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, *(video(n, timestamp=text) for n, text in enumerate(WRITTEN)))
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "America/New_York")
        server = Server(tmp_path)
    try:
        assert server.ask("SELECT timezone()") == [("America/New_York",)]
        monkeypatch.setenv("CLICKHOUSE_PORT", str(server.port))
        monkeypatch.setenv("CLICKHOUSE_USERNAME", "default")
        monkeypatch.setenv("CLICKHOUSE_PASSWORD", "")
        migrate(Settings.from_env(os.environ))
        assert child.body_of(child.start({"mode": "bulk"}))["video_events_processed"] == 4
        found = server.ask(STORED.format(f"{settings.clickhouse_database}.video_events"))
    finally:
        server.kill()
    assert found == [(event_id(n), str(ms)) for n, ms in enumerate(WRITTEN.values())]
