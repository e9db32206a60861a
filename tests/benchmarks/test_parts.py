"""What `make bench-parts` makes of its measurements, and that what it inserts is stored."""

from __future__ import annotations

import pytest

from benchmarks import parts
from benchmarks.parts import Bench, Case
from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask
from xapi_etl_processor.base.config import Settings


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
