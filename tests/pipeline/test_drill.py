"""A small crash drill, and whether a drill would notice wrong data."""

from __future__ import annotations

import pytest

from tests.faults.drill import drill
from tests.faults.drill_plan import PlannedBundle, judge

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


def test_lost_doubled_and_wrong_data_is_counted() -> None:
    one = PlannedBundle("a.jsonl", b"", ["s1", "s2"], other=1, rejected=[4])
    etags = {"a.jsonl": "e"}
    rows = {"s1": 1, "s2": 1}
    rejected = {("a.jsonl", 4): 1}
    ledger: dict[tuple[str, str], tuple[int, ...]] = {("a.jsonl", "e"): (4, 2, 1, 0, 1)}
    assert judge([one], etags, rows, rejected, ledger) == (0, 0, 0, 0, 0)
    assert judge([one], etags, {"s1": 1}, rejected, ledger).lost == 1
    assert judge([one], etags, {**rows, "s2": 2}, rejected, ledger).doubled == 1
    assert judge([one], etags, {**rows, "s3": 1}, rejected, ledger).unexpected == 1
    assert judge([one], etags, rows, {}, ledger).rejected_wrong == 1
    assert judge([one], etags, rows, {("a.jsonl", 4): 2}, ledger).rejected_wrong == 1
    assert judge([one], etags, rows, rejected, {}).ledger_wrong == 1
    wrong = {("a.jsonl", "e"): (3, 2, 1, 0, 0)}
    assert judge([one], etags, rows, rejected, wrong).ledger_wrong == 1
    another = {**ledger, ("b.jsonl", "e"): (1, 1, 0, 0, 0)}
    assert judge([one], etags, rows, rejected, another).ledger_wrong == 1
