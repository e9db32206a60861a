"""`make backfill`: a backfill through a queue, with workers that are killed."""

from __future__ import annotations

import os
import shutil

import pytest

from benchmarks.backfill import predicted, run

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


def test_the_simulation_expects_ten_times_the_time_for_ten_times_the_bundles() -> None:
    (small, _), (large, processor) = predicted(1000, 2), predicted(10_000, 2)
    assert large / small == pytest.approx(10, rel=0.15)
    assert processor < 2 * large * 1.1
    # Two workers and ClickHouse need more than half a processor.
    assert predicted(1000, 0.5)[0] > 1.5 * small
