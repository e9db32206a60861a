"""Two at the same time: one is held before each of its messages to ClickHouse, while the other runs
to its end. What neither may leave behind is not there, or a load has noted the command that removes
it, and that command does.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.privacy.conftest import be_quick
from tests.support.samples import event_id, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import XapiEtlError
from xapi_etl_processor.bulk.request import read_request
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.common import load
from xapi_etl_processor.modes.verify import run_verify
from xapi_etl_processor.privacy import forget, pseudonymize
from xapi_etl_processor.privacy.learner import Learner
from xapi_etl_processor.run import Connections, Run, Wanted
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.tables import EVENTS, REJECTED, TYPES

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
OLD, NEW = range(25), range(5)
"""The statements of the earlier version of the object, and of the one that replaces it."""

FORGOTTEN_NUMBER = 3
BAD = b'{"actor": {"account": {"name": "viewer-3"}}'
LEARNER_KEY = "two-at-once-0123456789-0123456789"


@dataclass
class Scene:
    """An object, and what can be done with it. Each gets settings of its own: one goes through a
    proxy, which holds it.
    """

    bucket: Bucket
    ask: Ask

    def load(self, settings: Settings, *, replacing: bool = False) -> None:
        """Load the object as it is; raises if it is not stored."""
        with connected(settings) as clickhouse:
            run = Run(
                settings, Connections(Stores(), clickhouse), "event", Wanted(replace=replacing)
            )
            for outcome in load([S3Object(self.bucket.name, KEY)], run):
                if outcome.failed:
                    raise NotDone(outcome.error)

    def replace(self, settings: Settings) -> None:
        """Upload the later version, and load it with `replace`."""
        self.bucket.put(KEY, *map(video, NEW))
        self.load(settings, replacing=True)

    def forget(self, settings: Settings) -> None:
        with connected(settings) as clickhouse:
            forget.forget([Learner(f"viewer-{FORGOTTEN_NUMBER}")], clickhouse)

    def pseudonymize(self, settings: Settings) -> None:
        with connected(replace(settings, learner_ids="pseudonyms")) as clickhouse:
            pseudonymize.pseudonymize(clickhouse)

    def repair(self, settings: Settings) -> None:
        """Verify the content, and load again what is missing."""
        asked = {"mode": "bulk", "section_id": 2001, "verify": True}
        asked |= {"content": True, "repair": True}
        with connected(settings) as clickhouse:
            run = Run(settings, Connections(Stores(), clickhouse), "bulk")
            run_verify(read_request(asked, settings), run)


@contextmanager
def connected(settings: Settings) -> Iterator[ClickHouse]:
    """A client of its own, closed in the end."""
    clickhouse = ClickHouse(settings)
    try:
        yield clickhouse
    finally:
        clickhouse.disconnect()


class NotDone(Exception):
    """An object was not loaded, and must be delivered again."""


DEEDS = ("load", "replace", "forget", "pseudonymize", "repair")


@pytest.fixture
def scene(bucket: Bucket, settings: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Scene:
    be_quick(monkeypatch)
    monkeypatch.setattr("xapi_etl_processor.pipeline.writer.FRESH_SECONDS", 0.01)
    return Scene(bucket, ask)


IN_CI = {("load", "replace"), ("load", "forget"), ("load", "pseudonymize"), ("replace", "load")}
"""The pairs that CI tries; `make drill` tries the others."""


def pair(held: str, other: str) -> Any:
    """A test parameter: `held` is stopped before each of its messages, and `other` overtakes it."""
    mark = pytest.mark.ci if (held, other) in IN_CI else pytest.mark.drill
    return pytest.param(held, other, 1, id=f"{held}, {other}", marks=mark)


TELLING = [pytest.param("load", "replace", 6, id="load, replace, at some messages")]
"""The pair that `make test` runs. The load is stopped before every sixth message only."""


@pytest.mark.fault(2, 74, caught_by="notes that a load reads after its insert")
@pytest.mark.parametrize(
    ("held", "other", "step"),
    [*TELLING, *(pair(held, other) for held in DEEDS for other in DEEDS)],
)
def test_whoever_overtakes_whom_nothing_is_lost_and_nothing_comes_back(
    scene: Scene,
    settings: Settings,
    clickhouse: ClickHouseServer,
    held: str,
    other: str,
    step: int,
) -> None:
    plain = replace(settings, learner_key=LEARNER_KEY)
    with tcp_proxy(clickhouse.port) as wire:
        through = replace(plain, clickhouse_port=wire.port)
        for turn in count(step, step):
            for table in TYPES:
                scene.ask(f"TRUNCATE TABLE {table}")
            scene.bucket.put(KEY, *map(video, OLD), BAD)
            if "load" not in (held, other):
                scene.load(plain)
            first, second = Deed(scene, held, through), Deed(scene, other, plain)
            was_held = hold(wire, turn, first, second)
            judge(scene, plain, (first, second), f"held before message {turn}")
            if not was_held:
                break
    assert turn > 5


@dataclass
class Deed:
    """One of the two: what it does, with which settings, and what it raised ('' if nothing)."""

    scene: Scene
    name: str
    settings: Settings
    error: str = ""

    def do(self) -> None:
        try:
            getattr(self.scene, self.name)(self.settings)
        except (XapiEtlError, NotDone) as error:
            self.error = str(error)


def hold(wire: TcpProxy, turn: int, first: Deed, second: Deed) -> bool:
    """Do both, and hold the first one before its message number `turn` until the second is done.

    Returns whether the first one sends that many messages.
    """
    reached, go_on = threading.Event(), threading.Event()
    wire.turn = 0

    def wait(_: bytes) -> None:
        if wire.turn == turn and not reached.is_set():
            reached.set()
            go_on.wait(60)

    wire.before = wait
    doing = threading.Thread(target=first.do)
    doing.start()
    while doing.is_alive() and not reached.wait(0.005):
        pass
    second.do()
    go_on.set()
    doing.join()
    return reached.is_set()


def judge(scene: Scene, plain: Settings, deeds: tuple[Deed, Deed], when: str) -> None:
    """What must be true after both, once what failed was done again, and what loads have noted was
    put right.
    """
    done = {deed.name for deed in deeds}
    later = replace(plain, learner_ids="pseudonyms" if "pseudonymize" in done else "plain")
    for deed in deeds:
        if deed.error:
            again = Deed(scene, deed.name, later)
            again.do()
            assert not again.error, when
    put_right(scene, later)
    left = set(NEW if "replace" in done else OLD)
    if "forget" in done:
        left.discard(FORGOTTEN_NUMBER)
        named = f"SELECT count() FROM {REJECTED} WHERE position(line, 'viewer-3') > 0"
        assert scene.ask(named) == [[0]], when
    found = scene.ask(f"SELECT event_id FROM {EVENTS} FINAL ORDER BY event_id")
    assert found == [[event_id(number)] for number in sorted(left)], when
    if "pseudonymize" in done:
        as_they_are = f"SELECT count() FROM {EVENTS} WHERE user_id NOT LIKE 'hmac:%'"
        assert scene.ask(as_they_are) == [[0]], when
        assert scene.ask(f"SELECT count() FROM {REJECTED} WHERE line != ''") == [[0]], when


def put_right(scene: Scene, settings: Settings) -> None:
    """Run the commands that loads have noted, as an operator does."""
    with connected(settings) as clickhouse:
        for command in notes.overtaken(clickhouse):
            if command == notes.SWEEP:
                forget.sweep(clickhouse)
            elif command == notes.PSEUDONYMIZE:
                pseudonymize.pseudonymize(clickhouse)
            else:
                scene.load(settings, replacing=True)
        assert notes.overtaken(clickhouse) == {}
