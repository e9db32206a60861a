"""`bulk --wait`: until the backfill queue is empty, and what is verified then."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.commands.conftest import Console, at_a_terminal, kept
from tests.conftest import Ask, Bucket
from tests.support.reader import IDS, ids
from tests.support.samples import video
from tests.support.simulated_queue import SimulatedQueue
from xapi_etl_processor.audit.progress import Loaded, loaded
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseRefused, ClickHouseUnavailable, RemoteFailed
from xapi_etl_processor.bulk.request import BulkRequest, read_request
from xapi_etl_processor.cli import main
from xapi_etl_processor.commands import bulk as command
from xapi_etl_processor.commands import wait
from xapi_etl_processor.commands.resume import Progress
from xapi_etl_processor.queues import sqs

pytestmark = pytest.mark.usefixtures("own_stream")


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_a_backfill_is_waited_for_and_verified(
    ask: Ask, console: Console, backfill: SimulatedQueue, tmp_path: Path
) -> None:
    assert main(["bulk", "--engine", "queue", "--start", "2024-01-01", "--wait"]) == 0
    answer = console.answer()
    assert (answer["success"], answer["files_sent"], answer["dead_letters"]) == (True, 8, 0)
    verified = answer["verified"]
    assert (verified["objects_checked"], verified["objects_missing"]) == (8, 0)
    assert "0 of 8 objects, 0 statements, 1 messages left" in console.err
    assert ask(IDS) == ids(range(8))
    assert kept(tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_what_the_queue_has_lost_is_found_by_waiting(
    console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_: float) -> None:
        backfill.sqs.purge_queue(QueueUrl=backfill.url)

    monkeypatch.setattr(wait, "sleep", lose)
    assert main(["bulk", "--engine", "queue", "--wait"]) == 1
    answer = console.answer()
    assert (answer["success"], answer["verified"]["objects_missing"]) == (False, 8)


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_resume_waits_on_without_sending_again(
    ask: Ask,
    console: Console,
    backfill: SimulatedQueue,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:

    def press_ctrl_c(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as at_first:
        at_first.setattr(wait, "sleep", press_ctrl_c)
        command_line = ["bulk", "--engine", "queue", "--wait"]
        assert main(command_line) == 1
    assert kept(tmp_path)[0]["sent"] is True
    monkeypatch.setattr(command, "run_bulk", None)
    assert main([*command_line, "--resume"]) == 0
    answer = console.answer()
    assert (answer["files_sent"], answer["verified"]["objects_checked"]) == (8, 8)
    assert ask(IDS) == ids(range(8))
    assert len(backfill.deliveries) == 1


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=pytest.mark.ci)])
@pytest.mark.usefixtures("bundles")
def test_waiting_goes_on_while_clickhouse_is_away(
    console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    if terminal:
        at_a_terminal(monkeypatch)
    failing = iter([True, True])

    def away_at_first(*arguments: Any) -> Any:
        if next(failing, False):
            raise ClickHouseUnavailable("ClickHouse [/ch] does not answer")
        return loaded(*arguments)

    monkeypatch.setattr(wait, "loaded", away_at_first)
    assert main(["bulk", "--engine", "queue", "--wait"]) == 0
    assert "ClickHouse [/ch]" in (console.answer() and console.err)


@pytest.mark.slow
def test_what_is_uploaded_while_a_backfill_runs_is_not_missing(
    bundles: Bucket, console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began five seconds ago."""
    run_a_minute, now = wait.__dict__["sleep"], time.time

    def upload(seconds: float) -> None:
        bundles.put("section/1/video/2024-01-02T00-00-00Z_new.jsonl", video(9))
        run_a_minute(seconds)

    monkeypatch.setattr(wait, "sleep", upload)
    monkeypatch.setattr(time, "time", lambda: now() - 5)
    monkeypatch.delenv("SQS_DEAD_LETTER_QUEUE_URL")
    assert main(["bulk", "--engine", "queue", "--wait"]) == 0
    answer = console.answer()
    verified = answer["verified"]
    assert (verified["objects_missing"], verified["recent"]) == (0, 1)
    assert answer["dead_letters"] is None, "without its URL, the queue cannot be asked"


def test_what_was_uploaded_before_a_backfill_began_is_not_recent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That nothing is there is no failure, and nothing is removed."""
    asked: list[Any] = []

    def verify(request: BulkRequest, _: Any) -> dict[str, Any]:
        asked.append((request.min_age_minutes, request.allow_empty, request.replace))
        return {"success": True, "complete": True}

    monkeypatch.setattr(wait, "_emptied", lambda *_: wait.Look(Loaded(0, 0), 0, 0))
    monkeypatch.setattr(wait, "run_verify", verify)
    monkeypatch.setattr(wait, "time", lambda: 1030.5)
    request = read_request({"mode": "bulk", "replace": True}, settings)
    wait.wait_for(request, settings, Progress(1000.5))
    assert asked == [(pytest.approx(30 / 60), True, False)]


@pytest.mark.slow
@pytest.mark.usefixtures("bundles")
def test_waiting_ends_if_it_can_never_see_anything(
    console: Console, backfill: SimulatedQueue, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: Any) -> Any:
        raise ClickHouseRefused("ClickHouse does not take the password")

    monkeypatch.setattr(wait, "loaded", refused)
    assert main(["bulk", "--engine", "queue", "--wait"]) == 1
    said = console.errors()
    assert "does not take the password" in said
    assert "run the same command with --resume to continue" in said
    assert kept(tmp_path)[0]["sent"] is True


def test_the_pace_is_that_since_the_first_look() -> None:
    assert wait._pace(0, 8, 60) == ""
    assert wait._pace(600, 1200, 60) == ", 10.0 objects a second, 0:02:00 left"
    pace = ", 1,500.0 objects a second, 1:51:07 left"
    assert wait._pace(90_000, 10_000_000, 60) == pace


def looking(monkeypatch: pytest.MonkeyPatch, *looks: tuple[int, int, int, int] | Exception) -> None:
    """What queue and ledger say, look by look, a second apart: messages that wait, those in
    progress, objects loaded, dead letters. The last one stays.
    """
    left, clock = list(looks), iter(range(1_000))

    def depth(url: str) -> dict[str, int]:
        now = left[0]
        if isinstance(now, Exception):
            left.pop(0)
            raise now
        waiting, in_progress, _, dead = now
        return {"waiting": dead} if "dead" in url else {"waiting": waiting, "busy": in_progress}

    def loaded_now(*_: Any) -> Loaded:
        now = left.pop(0) if len(left) > 1 else left[0]
        assert not isinstance(now, Exception)
        return Loaded(now[2], now[2])

    monkeypatch.setattr(sqs, "depth", depth)
    monkeypatch.setattr(wait, "loaded", loaded_now)
    monkeypatch.setattr(wait, "connections", lambda _: SimpleNamespace(clickhouse=None))
    monkeypatch.setattr(wait, "monotonic", lambda: next(clock))
    monkeypatch.setattr(wait, "sleep", lambda _: None)
    monkeypatch.setattr(wait, "EMPTY_SECONDS", 8)


SENT = Progress(1000.5, answer={"files_found": 4})
QUEUES: Any = SimpleNamespace(backfill_queue_url="queue", dead_letter_queue_url="dead")
REQUEST: Any = None


def test_messages_in_progress_and_a_queue_that_seems_empty_for_a_moment_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking(monkeypatch, (2, 0, 4, 0), (0, 2, 4, 0), (0, 0, 4, 1))
    last = wait._emptied(REQUEST, QUEUES, SENT)
    assert last == wait.Look(Loaded(4, 4), 0, 1)
    # Its counts are approximate: of four objects, three are loaded when it is empty at first.
    seen: list[int] = []
    looking(monkeypatch, (0, 0, 3, 0), (1, 0, 3, 0), *[(0, 0, 3, 0)] * 3, (0, 0, 4, 0))
    original = wait._look

    def counted(*given: Any) -> wait.Look:
        seen.append(len(seen))
        return original(*given)

    monkeypatch.setattr(wait, "_look", counted)
    assert wait._emptied(REQUEST, QUEUES, SENT).loaded.objects == 4
    assert len(seen) == 6


def test_throttling_and_errors_of_the_service_pass_and_what_was_seen_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(code: str, status: int) -> ClientError:
        said: Any = {"Error": {"Code": code, "Message": code}}
        said["ResponseMetadata"] = {"HTTPStatusCode": status}
        return ClientError(said, "GetQueueAttributes")

    before = wait.Look(Loaded(3, 3), 7, 1)
    for error in (refused("ThrottlingException", 400), refused("InternalError", 500)):
        looking(monkeypatch, error, (0, 0, 4, 0))
        found = wait._look(REQUEST, QUEUES, SENT, before)
        assert found == replace(before, problem=str(error))
    looking(monkeypatch, refused("InvalidAddress", 404))
    with pytest.raises(RemoteFailed, match="InvalidAddress"):
        wait._look(REQUEST, QUEUES, SENT, before)
