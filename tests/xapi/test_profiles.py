"""The settings that a user's profile has: what people read must not depend on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Bucket, Invoke, forget_connections
from tests.support.samples import BAD_LINE, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.modes import health
from xapi_etl_processor.storage.tables import VIEWS

pytestmark = [pytest.mark.usefixtures("own_stream"), pytest.mark.slow]

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
READERS = [
    ["access", "--user", "viewer-1"],
    ["rejects", "--json"],
    ["verify", "--content", "--json"],
    ["status", "--json"],
    ["report", "--section", "2001"],
]


@pytest.fixture(autouse=True)
def _loaded(
    watching: Settings, bucket: Bucket, invoke: Invoke, clickhouse: ClickHouseServer
) -> Iterator[None]:
    assert invoke({"bucket": bucket.name, "key": bucket.put(KEY, video(1), video(2), BAD_LINE)})
    forget_connections()
    yield
    clickhouse.profile = {}
    forget_connections()


def read(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Any]:
    """The exit code, and what was printed or written, but for times."""
    capsys.readouterr()
    output = ["-o", f"{folder}/report.html"] if command[0] == "report" else []
    code = main([*command, *output])
    forget_connections()
    out = capsys.readouterr().out
    if output:
        return code, (folder / "report.html").read_text().partition("<body")[2]
    found = json.loads(out)
    found.pop("duration_ms", None)
    return code, found


def test_commands_and_views_say_the_same_under_any_profile(
    watching: Settings,
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def everything() -> list[Any]:
        client = ClickHouse(watching)
        tables = [f"{client.database}.{view}" for view in VIEWS]
        shown = [client.query(f"SELECT * FROM {table} ORDER BY ALL") for table in tables]
        client.disconnect()
        return [*(read(command, tmp_path, capsys) for command in READERS), *shown]

    expected = everything()
    assert [code for code, _ in expected[: len(READERS)]] == [0] * len(READERS)
    assert len(expected[len(READERS)]) == 2, "the statements"
    null_for_empty = {"aggregate_functions_null_for_empty": "1"}
    for profile in ({"prefer_column_name_to_alias": "1"} | null_for_empty, {"readonly": "1"}):
        clickhouse.profile = profile
        assert everything() == expected


def test_a_profile_that_cuts_results_is_refused_by_whoever_reads(
    clickhouse: ClickHouseServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clickhouse.profile = {"max_result_rows": "1", "result_overflow_mode": "break"}
    for command in READERS:
        output = ["-o", f"{tmp_path}/report.html"] if command[0] == "report" else []
        assert main([*command, *output]) == 1, command
        forget_connections()
        said = capsys.readouterr()
        assert "result_overflow_mode = break" in said.err
        assert said.out == ""


def test_the_health_check_names_a_profile_that_cuts_results(
    clickhouse: ClickHouseServer, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However busy this machine is.
    monkeypatch.setattr(health, "SERVICE_SECONDS", 60)
    clickhouse.profile = {"result_overflow_mode": "break"}
    answer = invoke({"health_check": True})
    assert answer.status == 503
    assert "result_overflow_mode = break" in answer["clickhouse"]["error"]
