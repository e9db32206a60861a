"""A small crash drill."""

from __future__ import annotations

import pytest

from tests.faults.drill import drill

pytestmark = pytest.mark.slow


@pytest.mark.long
@pytest.mark.fault(13, 15, 32, 44, 48, caught_by="ledger; row identity")
@pytest.mark.timeout(300)
def test_killed_loaders_and_servers_lose_and_double_nothing() -> None:
    verdict, figures = drill(seed=7, client_kills=4, server_kills=2)
    assert verdict == (0, 0, 0, 0, 0)
    assert (figures.client_kills, figures.server_kills) == (4, 2)
    assert figures.statements > 500
    assert figures.repeated > 0
