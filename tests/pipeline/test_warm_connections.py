"""Connections that die within the minute in which nobody asks them."""

from __future__ import annotations

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.faults.tcp_proxy import CutAnswers, TcpProxy
from tests.pipeline.test_exchanges import uploaded
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.run import connections
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import ledger
from xapi_etl_processor.xapi.parse import Counts


def test_cut_at_each_answer(
    bucket: Bucket, wire: TcpProxy, invoke: Invoke, ask: Ask, pauses: list[float]
) -> None:
    assert invoke(uploaded(bucket, 0))["files_processed"] == 1
    number = 1
    for to in (b"max(forgotten_at)", b"INSERT INTO", b"processed_files", b"kind = 'replaced'"):
        for after in (0, 1, 20):
            wire.answers = CutAnswers(to, after, times=1)
            assert invoke(uploaded(bucket, number))["files_processed"] == 1
            number += 1
    assert ask("SELECT count() FROM video_events FINAL") == [[10 * number]]
    assert ask("SELECT uniqExact(key), count() FROM processed_files FINAL") == [[number, number]]


@pytest.mark.parametrize("letter", ["a", "'", "\\", "é", "\U0001f600", "\x01", "%"])
def test_a_page_of_the_longest_keys(
    letter: str, settings: Settings, clickhouse: ClickHouseServer
) -> None:
    """S3 allows keys of 1,024 bytes, and a server by itself only queries of 256 KiB."""
    size = len(letter.encode())
    objects = [
        S3Object("b" * 63, f"section/1/{n:04}/" + letter * ((1024 - 15) // size), f"{n:032x}-100")
        for n in range(500)
    ]
    own = connections(settings).clickhouse
    ledger.record_files(own, [(o, Counts()) for o in objects[::2]], "bulk", "r", FOREVER)
    found, state = ledger.look_up(own, objects, FOREVER)
    assert found == set(map(ledger.identity, objects[::2]))
    assert found == ledger.already_processed(own, objects, FOREVER)
    none, again = ledger.look_up(own, [S3Object("b", "k")], FOREVER)
    assert (none, again) == (set(), state)


def test_a_done_object_is_skipped_though_the_key_of_forgotten_learners_is_missing(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    sent = uploaded(bucket, 1)
    assert invoke(sent)["files_processed"] == 1
    ask(
        "INSERT INTO forgotten_learners (learner, name, salt, key_id)"
        " VALUES ('a', 'b', 'c', 'another')"
    )
    assert invoke(sent)["files_skipped"] == 1
