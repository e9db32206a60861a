"""A backfill through a queue, with workers that are killed, while new bundles arrive."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.backfill import BUCKET, Plan, Wrong, judge, percentile, predicted, run
from benchmarks.memory_queue import MemoryQueue
from benchmarks.numbered import EACH, LIVE, History

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(
    not NGINX and "REQUIRE_REAL_SERVER" not in os.environ, reason="NOT TESTED: no nginx"
)
@pytest.mark.fault(13, 44, caught_by="ledger; row identity")
def test_a_backfill_whose_workers_are_killed_loads_each_statement_once_beside_live_ones() -> None:
    plan = Plan(300, kill=35, live=20, records=20, repeated=5, visibility=2.0)
    found = run(plan)
    assert found.wrong == Wrong()
    assert found.killed == plan.kills == 1
    assert found.again >= 1
    assert found.messages > 300 / 20
    assert found.live > 0
    assert len(found.delays) == found.live
    assert found.processor > 0
    assert found.rows >= found.statements
    assert max(found.delays) < 20


def clock() -> Any:
    """A clock that the test sets."""

    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    return Clock()


def test_a_message_that_is_not_deleted_comes_back_after_its_visibility_timeout() -> None:
    now = clock()
    queue = MemoryQueue(30, now)
    queue.send(["a", "b", "c"])
    first = queue.receive(2, 0)
    assert [one.body for one in first] == ["a", "b"]
    assert [one.body for one in queue.receive(10, 0)] == ["c"]
    assert queue.delete(first[:1]) == first[:1]
    assert queue.delete(first[:1]) == []
    assert queue.receive(10, 0) == []
    assert len(queue) == 2
    now.now = 30.0
    back = queue.receive(10, 0)
    assert [(one.body, one.receives) for one in back] == [("b", 2), ("c", 2)]
    queue.delete(back)
    assert len(queue) == 0
    now.now = 90.0
    assert queue.receive(10, 0) == []


class Stored:
    """What a ClickHouse would answer, for a table with these bundles."""

    def __init__(self, history: History, seen: dict[int, tuple[int, int, int]]) -> None:
        self.seen = [(f"s3://{BUCKET}/{history.key(n)}", *row) for n, row in seen.items()]
        self.ledger = [(history.key(n), 1) for n in seen]

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self.ledger if "processed_files" in sql else self.seen


def test_what_is_lost_doubled_changed_or_unexpected_is_counted() -> None:
    history = History(Path("objects/bundles"), 10)
    right = {number: (EACH, EACH, history.digest(number)) for number in range(4)}

    def judged(**changed: Any) -> Wrong:
        seen = right | {int(name[1:]): row for name, row in changed.items()}
        stored = Stored(history, {number: row for number, row in seen.items() if row})
        return judge(stored, history, range(4))

    assert judged() == Wrong()
    assert judged(b1=None) == Wrong(lost=10, changed=1, unfinished=1)
    assert judged(b1=(9, 9, right[1][2] - 1)) == Wrong(lost=1, changed=1)
    assert judged(b1=(12, 10, right[1][2] + 5)) == Wrong(doubled=2, changed=1)
    assert judged(b1=(10, 10, right[2][2])) == Wrong(changed=1)
    assert judged(b9=(10, 10, 1)) == Wrong(unexpected=1)


def test_each_message_has_bundles_of_one_month_and_all_bundles_once(tmp_path: Path) -> None:
    history = History(tmp_path / BUCKET, 100)
    for number in range(100):
        history.write(number)
    messages = history.messages(7)
    # Fifteen parts of up to seven. Of the five ends of months, 17, 34, 50, 67 and 84, only the last
    # is the end of a part too: the others divide one.
    assert len(messages) == 15 + 4
    for number in range(100):
        assert sum(f"_{number:08}.jsonl" in message for message in messages) == 1
    for message in messages:
        assert sum(f"video/2024-0{month}-" in message for month in range(1, 7)) == 1


def test_live_bundles_are_in_the_same_sections_and_in_a_later_month() -> None:
    history = History(Path("objects/bundles"), 100)
    assert history.key(LIVE).startswith("section/2001/video/2024-07-")
    assert {history.key(LIVE + n).split("/")[1] for n in range(5)} == {
        history.key(n).split("/")[1] for n in range(100)
    }


def test_delays_are_told_by_share() -> None:
    values = [float(n) for n in range(100)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile([], 0.5)) == (50, 99, 0)


def test_the_simulation_expects_ten_times_the_time_for_ten_times_the_bundles() -> None:
    (small, _), (large, processor) = predicted(Plan(1000), 2), predicted(Plan(10_000), 2)
    assert large / small == pytest.approx(10, rel=0.15)
    assert processor < 2 * large * 1.1
    # Two workers and ClickHouse need more than half a processor.
    assert predicted(Plan(1000), 0.5)[0] > 1.5 * small
