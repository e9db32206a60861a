"""A small crash drill, and whether a drill would notice wrong data."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.drill import drill
from tests.faults.drill_plan import PlannedBundle, judged

pytestmark = pytest.mark.slow


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.fault(13, 15, 32, 44, 48, caught_by="ledger; row identity")
@pytest.mark.timeout(300)
def test_killed_loaders_and_servers_lose_and_double_nothing() -> None:
    verdict, figures = drill(seed=7, client_kills=4, server_kills=2)
    assert verdict == (0, 0, 0, 0, 0)
    assert (figures.client_kills, figures.server_kills) == (4, 2)
    assert figures.statements > 50
    assert figures.repeated > 0


def test_lost_doubled_and_wrong_data_is_counted() -> None:
    """The drill asks for statements, then for rejected lines, then for the ledger."""
    one = PlannedBundle("a.jsonl", b"", ["s1", "s2"], other=1, rejected=[4])
    right: list[list[Any]] = [
        [("s1",), ("s2",)],
        [("s3://b/a.jsonl", 4)],
        [("a.jsonl", "e", 4, 2, 1, 0, 1)],
    ]

    def verdict(table: int, rows: list[Any]) -> tuple[int, ...]:
        answers = iter([rows if n == table else given for n, given in enumerate(right)])
        return tuple(judged(lambda _: next(answers), "b", [one], {"a.jsonl": "e"}))

    lost, doubled, unexpected = [("s1",)], [("s1",), ("s2",), ("s2",)], [*right[0], ("s3",)]
    assert verdict(0, right[0]) == (0, 0, 0, 0, 0)
    assert verdict(0, lost) == (1, 0, 0, 0, 0)
    assert verdict(0, doubled) == (0, 1, 0, 0, 0)
    assert verdict(0, unexpected) == (0, 0, 1, 0, 0)
    assert verdict(1, []) == verdict(1, right[1] * 2) == (0, 0, 0, 1, 0)
    assert verdict(2, []) == verdict(2, [("a.jsonl", "e", 3, 2, 1, 0, 0)]) == (0, 0, 0, 0, 1)
    assert verdict(2, [*right[2], ("b.jsonl", "e", 1, 1, 0, 0, 0)]) == (0, 0, 0, 0, 1)
