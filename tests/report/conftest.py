"""Reports of sections in a database that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import variables_for
from tests.support.reports import Report, write
from tests.support.watched import Watched
from xapi_etl_processor.report import charts


@pytest.fixture(scope="module")
def report_settings(clickhouse: ClickHouseServer, watched_database: str) -> Iterator[None]:
    """Settings of the command; drawing code of 0.9 MB is only in what test_browser.py opens."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables_for(clickhouse, watched_database).items():
            patch.setenv(name, value)
        patch.setattr(charts, "script", lambda: "")
        yield


@pytest.fixture
def report(watched: Watched, tmp_path: Path, report_settings: None) -> Report:
    """Writes the section's report."""
    return lambda *options: write(tmp_path, str(watched.section), *options)
