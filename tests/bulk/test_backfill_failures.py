"""Messages of a backfill that fail: their objects, too little time, an outage.

Time in the queue is simulated, and the handler, S3, SQS and ClickHouse are real: see
simulated_queue.py.
"""

from __future__ import annotations

import json
from operator import sub

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.support.backfills import REQUEST, key, keys_in
from tests.support.clocks import Clock
from tests.support.reader import IDS, ROWS, ids
from tests.support.samples import notification, video
from tests.support.simulated_queue import MINUTE, SimulatedQueue
from xapi_etl_processor.queues import sqs


@pytest.mark.slow
@pytest.mark.fault(76, caught_by="what the ledger has since the first delivery")
@pytest.mark.parametrize("force", [False, pytest.param(True, marks=pytest.mark.ci)])
def test_one_object_that_is_gone_is_a_dead_letter_of_its_own_and_the_others_are_loaded_once(
    bucket: Bucket, invoke: Invoke, ask: Ask, backfill: SimulatedQueue, force: bool
) -> None:
    ask("SYSTEM STOP MERGES video_events")
    bucket.put_each(*map(key, range(8)))
    invoke({**REQUEST, "force_reprocess": force})
    bucket.client.delete_object(Bucket=bucket.name, Key=key(5))
    backfill.run_until(30 * MINUTE)
    assert backfill.is_empty
    assert ask(ROWS) == [[7]]
    (letter,) = backfill.dead_letters()
    body = json.loads(letter["Body"])
    assert keys_in(body) == [key(5)]
    assert body["backfill"] == ({"force_reprocess": True} if force else {})
    assert f"{bucket.uri(key(5))} does not exist" in backfill.reasons()[0]
    assert len(backfill.deliveries) == 5

    bucket.put(key(5), video(5))
    backfill.send(letter["Body"])
    backfill.run_until(31 * MINUTE)
    assert ask(IDS) == ids(range(8))


@pytest.mark.slow
@pytest.mark.fault(76, caught_by="what the ledger has since the first delivery")
def test_a_message_that_takes_too_long_gets_on_with_every_delivery_even_with_force(
    bucket: Bucket,
    invoke: Invoke,
    ask: Ask,
    clickhouse: ClickHouseServer,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stays in the queue: Lambda stops a chain of about 16 messages that the function sends."""
    monkeypatch.setenv("BATCH_ROWS", "1")
    bucket.put_each(*map(key, range(13)))
    invoke({**REQUEST, "force_reprocess": True})
    monkeypatch.setattr(sqs, "send", None)
    clock = Clock()

    def each_insert_takes_six_seconds(point: str, sql: str) -> None:
        if point == "stored" and ".video_events (" in sql:
            clock.now += 6

    clickhouse.hook = each_insert_takes_six_seconds
    while not backfill.is_empty:
        backfill.deliver(seconds_left=36, clock=clock)
        backfill.now = backfill.next_visible()
        assert len(backfill.deliveries) <= 13
    clickhouse.hook = lambda *_: None
    assert len(backfill.deliveries) > 2
    assert max(map(sub, backfill.deliveries[1:], backfill.deliveries)) < 2 * MINUTE
    assert ask(IDS) == ids(range(13))
    assert ask(ROWS) == [[13]]
    assert backfill.dead_count() == 0


@pytest.mark.slow
def test_the_first_delivery_of_a_forced_message_loads_what_another_one_has_loaded(
    bucket: Bucket, ask: Ask, backfill: SimulatedQueue
) -> None:
    """Two messages about one object in one batch, as dead letters that were moved back."""
    ask("SYSTEM STOP MERGES video_events")
    bucket.put_each(key(0))
    backfill.batch = 10
    forced = json.dumps(
        {
            "backfill": {"force_reprocess": True},
            "Records": notification(bucket.name, key(0), key(1))["Records"],
        }
    )
    backfill.send(forced)
    backfill.deliver()
    assert ask(ROWS) == [[1]]
    backfill.now = backfill.next_visible()
    backfill.deliver()
    assert ask(ROWS) == [[1]], "it was loaded since the first delivery"
    backfill.now = backfill.next_visible()
    backfill.send(forced)
    backfill.deliver()
    assert ask(ROWS) == [[2]], "the second message wants it anew"
