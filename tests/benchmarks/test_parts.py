"""What `make bench-parts` makes of its measurements, and that what it inserts is stored."""

from __future__ import annotations

import pytest

from benchmarks import parts
from benchmarks.parts import Bench, Case, Found
from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask
from xapi_etl_processor.base.config import Settings


def test_a_line_of_each_table() -> None:
    """Four inserts of 50 ms in a second, each of 100 rows in 36 months."""
    one = Found(
        Case(36, 100, 1),
        seconds=1.0,
        inserts=[0.05] * 4,
        most_in_month=3,
        before=[0.1],
        during=[0.1, 0.3],
    )
    assert parts.inserting([one]).splitlines()[-1] == (
        "| 36 | 100 | 1 | 400 | 50 | 144 | 3 | 100 ms | 200 ms |"
    )
    read = parts.reading({8: [0.5, 0.25, 2.0, 0.4, 0.1]})
    assert read.splitlines()[-1] == "| 8 | 500 ms | 250 ms | 2.0 s | 400 ms | 100 ms |"


@pytest.mark.ci
@pytest.mark.slow
def test_every_row_that_writers_inserted_is_there(
    watching: Settings,
    clickhouse: ClickHouseServer,
    ask: Ask,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "BASE_ROWS", 100)
    monkeypatch.setattr(parts, "READS", 1)
    done = Bench(clickhouse, watching, 20).run(Case(36, 20, 2), 0.3)
    rows = 20 * len(done.inserts)
    assert ask("SELECT count(), uniqExact(event_id) FROM video_events") == [[100 + rows] * 2]
    # Twenty of the 36 months.
    months = "SELECT uniqExact(toYYYYMM(timestamp)) FROM video_events WHERE section_id != 2001"
    assert ask(months) == [[20]]
    assert done.during
