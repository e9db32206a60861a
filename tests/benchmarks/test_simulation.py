"""The simulation of queues, functions and ClickHouse, compared with sums worked out by hand; and
the page that it writes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import simulate as page
from benchmarks.report import SCALING
from benchmarks.scenario import Coefficients, Setup, coefficients, invocation
from benchmarks.simulate import dollars, limits
from benchmarks.simulation import Result, simulate

A_SECOND = Coefficients(*[0.0] * 13)._replace(
    clickhouse_wait_ms=1e3, outage_ms=1e3, merge_part_ms=1e-6
)
"""Each invocation takes one second, whatever it loads, and ClickHouse has next to nothing to do."""


def steady(bundles_a_second: float, **more: object) -> Setup:
    """So many bundles of one statement, at all hours."""
    defaults = {"each": 1, "peak": 1.0, "hours": 1.0, "step": 1.0}
    return Setup(bundles_a_second * 86_400, **(defaults | more))  # type: ignore[arg-type]


def test_an_invocation_takes_its_shares_of_bundles_and_statements() -> None:
    """At 1,769 MB: 10 + 33 * 1 + 330 * 0.02 ms of processor; the first request and two rounds of up
    to 32 bundles wait 3 * 30 ms; ClickHouse 50 + 330 * 0.01 ms.
    """
    known = Coefficients(10, 1, 20, 5, 30, 50, 10, 40, 3, 2, 1, 20, 5000)
    cost = invocation(Setup(each=10, memory=1769), 33, known)
    assert cost.processor == pytest.approx(0.0496)
    assert cost.seconds == pytest.approx(0.0496 + 0.090 + 0.0533)
    assert cost.server == pytest.approx(0.040 + 0.00099)
    assert (cost.inserts, cost.parts) == (2, 1)
    # Half of the processor is twice as slow.
    half = invocation(Setup(each=10, memory=1769 // 2), 33, known)
    assert half.seconds - cost.seconds == pytest.approx(0.0496, rel=0.01)
    # 330 rows in inserts of 100 are four inserts.
    assert invocation(Setup(each=10, batch_rows=100), 33, known).parts == 4


def test_a_bundle_waits_for_the_window_and_for_its_invocation() -> None:
    result = simulate(steady(0.1, window=20.0), A_SECOND)
    assert result.delay(0.01) == pytest.approx(1 + 0.1 * 20)
    assert result.delay(1) == pytest.approx(21)


def test_more_than_the_functions_can_take_waits() -> None:
    """Two functions load ten bundles a second each, and 40 arrive: 20 a second are left."""
    setup = steady(40, concurrency=2, batch_size=10, window=0.0)
    result = simulate(setup, A_SECOND)
    assert result.deepest == pytest.approx(20 * 3600, rel=0.03)
    assert result.most_functions == pytest.approx(2)
    assert result.bundles == pytest.approx(20 * 3600, rel=0.03)


def test_what_a_surge_leaves_is_drained_as_fast_as_the_functions_can() -> None:
    """Two functions load ten bundles a second each. At 30 a second for six minutes, 3,600 are left,
    which take three minutes.
    """
    setup = steady(15, concurrency=2, batch_size=10, window=0.0, hours=0.0, step=5.0)
    result = simulate(replace(setup, surge=(0.5, 0.6, 2.0)), A_SECOND)
    assert result.bundles == pytest.approx(15 * 1800 + 30 * 360, rel=0.03)
    assert result.deepest == pytest.approx(3600, rel=0.15)
    assert (result.drained or 0) * 3600 == pytest.approx(180, rel=0.15)


def test_during_an_outage_messages_wait_in_flight_and_afterwards_all_are_stored() -> None:
    setup = steady(10, hours=8.0, step=10.0)
    whole = simulate(setup, A_SECOND)
    away = simulate(Setup(**{**vars(setup), "outage": (1.0, 4.0)}), A_SECOND)
    assert away.deepest == pytest.approx(10 * 3 * 3600, rel=0.02)
    assert away.bundles == pytest.approx(whole.bundles, abs=60)
    # The last pause is ten minutes.
    assert away.drained == pytest.approx(10 / 60, abs=0.05)
    assert away.delay(1) == pytest.approx(3 * 3600 + 600, abs=120)


def test_a_backfill_that_takes_weeks_ends_also_after_an_outage() -> None:
    """Five invocations a second with 10 bundles each; it waits while ClickHouse is away, and for at
    most the longest pause of a message, ten minutes.
    """
    setup = steady(0, step=600.0, history=10.0 * 86_400 * 50, records=10)
    whole = simulate(setup, A_SECOND)
    assert whole.history_hours == pytest.approx(10 * 24, rel=0.01)
    away = simulate(replace(setup, outage=(0.0, 12.0)), A_SECOND)
    assert away.history_hours == pytest.approx(10 * 24 + 12, rel=0.01)


def test_merges_that_keep_up_leave_few_parts_and_others_make_clickhouse_refuse() -> None:
    """Merges have half of one processor: 500 ms a second. Five parts a second are two thirds of
    that with 66 ms each, and twice as much as that with 200 ms.
    """
    setup = steady(5, batch_size=1, window=0.0, processors=1.0, step=5.0, hours=2.0)
    keeps_up = simulate(setup, A_SECOND._replace(merge_part_ms=66.0))
    assert keeps_up.most_parts < 100
    assert keeps_up.delay(0.99) < 60
    behind = simulate(setup, A_SECOND._replace(merge_part_ms=200.0))
    assert 1000 < behind.most_parts < 3100
    assert behind.delay(0.99) > 600


def test_a_backfill_takes_its_messages_by_its_own_functions() -> None:
    """1,000 bundles, ten in a message of one second, two at once: 50 seconds."""
    live = {"hours": 0.1, "window": 0.0}
    setup = steady(1, history=1000, records=10, history_concurrency=2, **live)
    result = simulate(setup, A_SECOND)
    assert result.history_hours == pytest.approx(50 / 3600, rel=0.03)
    alone = simulate(steady(1, **live), A_SECOND)
    assert result.delay(1) == alone.delay(1)


def test_the_nearest_limit_comes_first() -> None:
    """40 bundles a second need four functions of two: twice the limit."""
    setup = steady(40, concurrency=2, batch_size=10, window=0.0)
    first = limits(setup, A_SECOND)[0]
    assert first.name == "functions"
    assert first.share == pytest.approx(2)


def test_a_day_costs_what_aws_charges() -> None:
    """1,024 MB for 1,000 s, a million invocations, ten million requests, and as many GETs."""
    result = Result(Setup(memory=1024))
    result.function_seconds, result.invocations = 1000, 1e6
    result.sqs_requests = result.bundles = 1e7
    costs = dollars(result)
    assert costs["Lambda"] == pytest.approx(0.0166667 + 0.20)
    assert costs["SQS"] == pytest.approx(4.0)
    assert costs["S3"] == pytest.approx(4.0)


def test_a_month_of_batches_has_the_inserts_and_the_costs_of_their_invocations() -> None:
    """A bundle a second is two inserts a second, and 2,592,000 a month: 2,592,000 GB-seconds for
    $43.20, as many invocations for $0.52, three times as many requests to SQS and those of idle
    pollers for $3.37, and as many GETs for $1.04.
    """
    row = page.batch_row(60, 1, 0.0, A_SECOND)
    assert row["half within"] == row["99% within"] == "1.0 s"
    assert int(row["inserts a minute"]) == pytest.approx(120, abs=1)
    assert float(row["a month"][1:]) == pytest.approx(48.13, rel=0.01)
    # Ten functions do 600 a minute.
    assert page.batch_row(700, 1, 0.0, A_SECOND)["half within"] == "falls behind"


@pytest.mark.ci
@pytest.mark.slow
def test_the_tables_of_the_page_are_what_the_simulation_gives() -> None:
    """Those of the smaller sizes; the others take longer, and come from the same functions."""
    text, known = SCALING.read_text(), coefficients()
    for table, sizes in ((page.day_table, page.DAYS), (page.backfill_table, page.BACKFILLS)):
        title, ways = next(iter(sizes.items()))
        assert f"### {title}\n\n{table(ways, known)}" in text
    assert page.batch_table(known) in text
