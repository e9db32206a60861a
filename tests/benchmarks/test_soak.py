"""`make bench BENCH=--soak`: a load that is held, doubled, and drained."""

from __future__ import annotations

import warnings

import pytest

from benchmarks import soak
from benchmarks.load import Upload
from benchmarks.soak import Found, Phase, grows, highest
from tests.faults.drill_plan import Verdict


def test_delays_grow_if_half_of_the_last_bundles_take_a_second_longer() -> None:
    """Batches make delays go up and down between 0 and 5 seconds, which is no growth."""
    waves = [float(number % 5) for number in range(80)]
    assert not grows(waves)
    assert grows([delay + number * 0.05 for number, delay in enumerate(waves)])


def test_the_highest_rate_is_doubled_until_delays_grow_and_then_halved_twice() -> None:
    """20, 40, 80 and not 160; then not 120, and 100."""
    tried: list[float] = []

    def is_flat(rate: float) -> bool:
        tried.append(rate)
        return rate <= 110

    assert highest(is_flat) == 100
    assert tried == [20, 40, 80, 160, 120, 100]


def test_a_backlog_is_drained_when_the_last_bundle_is_seen() -> None:
    """Ten bundles in ten seconds: nine are seen after a second, and one after eight."""
    uploads = [Upload(number, f"key-{number}", "", 100.0 + number) for number in range(10)]
    seen = {one.key: one.due + 1 for one in uploads} | {"key-4": 112.0}
    surge = Phase(1.0, 10.0, uploads, [], [], {})
    found = Found("", 10, surge, surge, seen, 0, 0, Verdict(0, 0, 0, 0, 0))
    assert found.drained == 112 - (100 + soak.SURGE_SECONDS)
    assert (found.delay(surge, 0.5), found.delay(surge, 0.9), found.delay(surge, 1)) == (1, 1, 8)


@pytest.mark.ci
@pytest.mark.slow
def test_a_load_is_stored_once_and_each_bundle_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "SURGE_SECONDS", 11.0)
    with warnings.catch_warnings():
        # The cloud of a test is left as it is: the uploader is a process of its own.
        warnings.simplefilter("ignore", ResourceWarning)
        found = soak.run("current", 11.0, rate=10.0)
    assert found.wrong == (0, 0, 0, 0, 0)
    # Five seconds of 20 a second, then 11 of 10 and 11 of 20.
    assert found.bundles == len(found.seen) == 100 + 110 + 220
    assert sum(one.bundles for one in found.held.invocations) > 0
    assert (found.again, found.dead) == (0, 0)
    assert len(soak.table([found]).splitlines()) > 10
