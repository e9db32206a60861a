"""`make backfill`: a backfill through a queue, with workers that are killed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from benchmarks.backfill import BUCKET, message_bodies, predicted, run, write_bundle
from tests.faults.killable import Queue

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.skipif(
    not NGINX and "REQUIRE_REAL_SERVER" not in os.environ, reason="NOT TESTED: no nginx"
)
@pytest.mark.fault(13, 44, caught_by="ledger; row identity")
def test_a_backfill_whose_workers_are_killed_loads_each_statement_once() -> None:
    found = run(3000, kills=1)
    assert found.wrong == (0, 0, 0, 0, 0)
    assert found.killed == 1
    assert found.again >= 1
    # One for each of six months at least.
    assert found.messages >= 6
    assert found.processor > 0


def test_what_is_left_of_a_batch_is_delivered_again_and_a_bulk_request_alone() -> None:
    queue = Queue(most=2)
    queue.send(["a", "b", "c"])
    taken = queue.receive()
    assert [one.body for one in taken] == ["a", "b"]
    queue.settle(taken, taken[1:])
    assert (queue.left, queue.again) == (2, 1)
    again = queue.receive()
    assert [one.body for one in again] == ["c", "b"]
    queue.settle(again, [])
    assert (queue.left, queue.receive()) == (0, [])
    queue = Queue(most=5)
    queue.send(["a", {"mode": "bulk"}, "b", "c"])
    assert [len(queue.receive()) for _ in range(3)] == [1, 1, 2]


def test_each_message_has_bundles_of_one_month_and_all_bundles_once(tmp_path: Path) -> None:
    folder = tmp_path / BUCKET
    made = [write_bundle(folder, number, 30) for number in range(30)]
    bodies = message_bodies(folder, made)
    assert len(bodies) == 6
    for one in made:
        assert sum(one.key in body for body in bodies) == 1
        lines = (folder / one.key).read_text().splitlines()
        assert [json.loads(line)["id"] for line in lines] == one.video
        [section] = {
            json.loads(line)["context"]["extensions"]["http://oli.cmu.edu/extensions/section_id"]
            for line in lines
        }
        assert one.key.startswith(f"section/{section}/video/2024-0")
    for body in bodies:
        assert sum(f"video/2024-0{month}-" in body for month in range(1, 7)) == 1


def test_the_simulation_expects_ten_times_the_time_for_ten_times_the_bundles() -> None:
    (small, _), (large, processor) = predicted(1000, 2), predicted(10_000, 2)
    assert large / small == pytest.approx(10, rel=0.15)
    assert processor < 2 * large * 1.1
    # Two workers and ClickHouse need more than half a processor.
    assert predicted(1000, 0.5)[0] > 1.5 * small
