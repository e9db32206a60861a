"""A small crash drill, and whether a drill would notice wrong data."""

from __future__ import annotations

import pytest

from tests.faults.drill import drill
from tests.faults.drill_plan import SHARED, PlannedBundle, bundle, judge, kills
from tests.support.samples import event_id

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


def test_the_plan_has_every_kind_of_line_and_bundle() -> None:
    made = [bundle(1, number) for number in range(60)]
    assert {each.key.endswith(".gz") for each in made} == {True, False}
    assert all(any(each.counts[kind] for each in made) for kind in range(1, 5))
    assert max(each.counts[1] for each in made) > 300
    seen = [statement for each in made for statement in set(each.video)]
    assert any(seen.count(event_id(SHARED + n)) > 1 for n in range(200))
    victims = [kill.victim for kill in kills(1, 20, 10)]
    assert (victims.count("client"), victims.count("server")) == (20, 10)


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
