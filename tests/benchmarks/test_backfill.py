"""`make backfill`: a backfill through a queue, with workers that are killed."""

from __future__ import annotations

import os
import shutil

import pytest

from benchmarks.backfill import run

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
