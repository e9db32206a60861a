from __future__ import annotations

from collections.abc import Iterator

import pytest

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.clickhouse_client import ClickHouse


@pytest.fixture
def client(settings: Settings) -> Iterator[ClickHouse]:
    """A client for the test's database."""
    made = ClickHouse(settings)
    yield made
    made.disconnect()
