"""Notes that come a second time: the later one counts, whichever row a merge would keep."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

from tests.conftest import Ask
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes

HOUR = 3_600


def later() -> None:
    """Wait until the tables' clock, which has milliseconds, shows another time."""
    time.sleep(0.003)


def test_each_further_version_replaces_those_before_it(client: ClickHouse) -> None:
    def version(hours: int) -> S3Object:
        modified = datetime.fromtimestamp(1_709_251_200 + hours * HOUR, UTC)
        return S3Object("bundles", "section/1/a.jsonl", f"etag-{hours}", modified=modified)

    seen = notes.read(client)
    assert notes.replaced_since(client, [version(1)], seen) == []
    for hours in (2, 5):
        notes.note_replaced(client, [version(hours)])
        later()
    assert notes.read(client).replaced[0] == 2
    loading = [version(hours) for hours in (1, 2, 4, 5, 6)]
    found = [notes.replaced_since(client, [one], seen) for one in loading]
    assert found == [[version(1)], [version(2)], [version(4)], [], []]
    elsewhere = replace(version(1), key="section/1/b.jsonl")
    assert notes.replaced_since(client, [elsewhere], seen) == []


def test_a_command_that_was_noted_again_has_the_time_of_the_last_note(
    client: ClickHouse, ask: Ask
) -> None:
    for _ in range(2):
        notes.note_overtaken(client, [notes.SWEEP, notes.PSEUDONYMIZE], FOREVER)
        later()
    times = "SELECT uniqExact(noted_at), toUnixTimestamp64Milli(max(noted_at)) FROM load_notes"
    ((different, last),) = ask(times)
    assert different == 2
    found = notes.overtaken(client)
    assert {name: round(at.timestamp() * 1000) for name, at in found.items()} == {
        notes.SWEEP: int(last),
        notes.PSEUDONYMIZE: int(last),
    }
