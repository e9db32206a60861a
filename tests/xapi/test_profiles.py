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
from xapi_etl_processor.report.figures import read_section

pytestmark = [pytest.mark.usefixtures("own_stream"), pytest.mark.slow]

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
READERS = [
    ["access", "--user", "viewer-1"],
    ["rejects", "--json"],
    ["verify", "--content", "--json"],
    ["status", "--json"],
]


@pytest.fixture(autouse=True)
def _loaded(
    watching: Settings, bucket: Bucket, invoke: Invoke, clickhouse: ClickHouseServer
) -> Iterator[None]:
    assert invoke({"bucket": bucket.name, "key": bucket.put(KEY, video(1), video(2), BAD_LINE)})
    forget_connections()
    yield
    clickhouse.profile = {}


UNREPORTED = ("video_statements", "viewer_progress", "section_daily")
"""The views that no report shows anything of."""


def read(command: list[str], capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed, but for times."""
    capsys.readouterr()
    assert main(command) == 0, command
    forget_connections()
    found = json.loads(capsys.readouterr().out)
    found.pop("duration_ms", None)
    return found


@pytest.mark.ci
@pytest.mark.parametrize(
    "profile",
    [
        {"prefer_column_name_to_alias": "1", "aggregate_functions_null_for_empty": "1"},
        {"readonly": "1"},
    ],
)
def test_commands_reports_and_views_say_the_same_under_any_profile(
    watching: Settings,
    clickhouse: ClickHouseServer,
    capsys: pytest.CaptureFixture[str],
    profile: dict[str, str],
) -> None:
    def everything() -> dict[str, Any]:
        client = ClickHouse(watching)
        found: dict[str, Any] = {
            view: client.query(f"SELECT * FROM {client.database}.{view} ORDER BY ALL")
            for view in UNREPORTED
        }
        found["report"] = read_section(client, "2001")
        client.disconnect()
        return found | {command[0]: read(command, capsys) for command in READERS}

    expected = everything()
    assert len(expected["video_statements"]) == len(expected["report"].videos) + 1 == 2
    clickhouse.profile = profile
    assert everything() == expected


@pytest.mark.ci
def test_a_profile_that_cuts_results_is_refused_by_whoever_reads_and_named_by_the_health_check(
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clickhouse.profile = {"max_result_rows": "1", "result_overflow_mode": "break"}
    for command in (*READERS, ["report", "--section", "2001", "-o", f"{tmp_path}/report.html"]):
        assert main(command) == 1, command
        forget_connections()
        said = capsys.readouterr()
        assert "result_overflow_mode = break" in said.err
        assert said.out == ""
    # However busy this machine is.
    monkeypatch.setattr(health, "SERVICE_SECONDS", 60)
    clickhouse.profile = {"result_overflow_mode": "break"}
    answer = invoke({"health_check": True})
    assert answer.status == 503
    assert "result_overflow_mode = break" in answer["clickhouse"]["error"]
