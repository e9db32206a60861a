"""What tests of forgetting share: the command, statements of a learner, and what is stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Bucket, Cli, Invoke
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.privacy import forget as forgetting
from xapi_etl_processor.storage import learners
from xapi_etl_processor.xapi.learners import fingerprint, name_hash

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
LATER = "section/2001/video/2024-01-02T12-00-00Z_2.jsonl"
PAGE, OTHER_PAGE = "https://lms.example.org", "https://other.example.org"
MAIL = "learner@example.org"


def by_account(number: int, name: str = "learner-1", page: str = PAGE) -> dict[str, Any]:
    return video(number, actor={"account": {"name": name, "homePage": page}})


REJECTED = json.dumps({k: v for k, v in by_account(9).items() if k != "verb"}).encode()


@pytest.fixture
def forget(cli: Cli, settings: Settings) -> Cli:
    """The command, which does not ask."""
    return lambda *options, code=0: cli("forget", "--yes", *options, code=code)


def users(ask: Ask) -> list[str]:
    return [user for (user,) in ask("SELECT user_id FROM video_events FINAL ORDER BY ALL")]


Load = Callable[..., Answer]


@pytest.fixture
def load(bucket: Bucket, invoke: Invoke) -> Load:
    """Upload these lines and load them; gives the answer."""

    def load(*lines: Any, key: str = KEY, **more: bool) -> Answer:
        return invoke({"bucket": bucket.name, "key": bucket.put(key, *lines), **more})

    return load


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test waits for a time to pass, and loads read the list again before each batch."""
    be_quick(monkeypatch)
    monkeypatch.setattr("xapi_etl_processor.pipeline.writer.FRESH_SECONDS", 0.0)


def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `forget` wait for no second, and restore the log's stream after the test."""
    for module in (learners, forgetting):
        monkeypatch.setattr(module, "FRESH_SECONDS", 0.01)
    monkeypatch.setattr(logger.handlers[0], "stream", sys.stderr)


def at_the_second_look(clickhouse: ClickHouseServer, act: Callable[[], None]) -> list[str]:
    """Call `act` when a load looks at the list for the second time; returns the looks so far."""
    looks: list[str] = []

    def meanwhile(point: str, sql: str) -> None:
        if point == "query" and "max(forgotten_at)" in sql:
            looks.append(sql)
            if len(looks) == 2:
                clickhouse.hook = lambda *_: None
                acting = Thread(target=act)
                acting.start()
                acting.join(30)

    clickhouse.hook = meanwhile
    return looks


def hashes() -> str:
    """A row of the list: learner-1 on any home page."""
    salt = "5a17"
    key = learners.hash_key(salt, b"")
    made = (
        fingerprint("learner-1", None, key),
        name_hash("learner-1", key),
        salt,
    )
    return str(made)
