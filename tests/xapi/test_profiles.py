"""The settings that a user's profile has: what people read must not depend on them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke, forget_connections
from tests.support.samples import BAD_LINE, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main
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


@pytest.mark.parametrize(
    "profile",
    [
        {"readonly": "1"},
        {"prefer_column_name_to_alias": "1"},
        {"aggregate_functions_null_for_empty": "1"},
    ],
    ids=lambda profile: next(iter(profile)),
)
def test_commands_that_read_say_the_same_under_any_profile(
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    profile: dict[str, str],
) -> None:
    expected = [read(command, tmp_path, capsys) for command in READERS]
    assert [code for code, _ in expected] == [0] * len(READERS)
    clickhouse.profile = profile
    assert [read(command, tmp_path, capsys) for command in READERS] == expected


@pytest.mark.parametrize(
    "profile",
    [{"prefer_column_name_to_alias": "1"}, {"aggregate_functions_null_for_empty": "1"}],
    ids=lambda profile: next(iter(profile)),
)
def test_views_show_the_same_under_any_profile(
    clickhouse: ClickHouseServer, ask: Ask, profile: dict[str, str]
) -> None:
    questions = [f"SELECT * FROM {view} ORDER BY ALL" for view in VIEWS]
    expected = [ask(question) for question in questions]
    clickhouse.profile = profile
    forget_connections()
    assert [ask(question) for question in questions] == expected


@pytest.mark.parametrize("command", READERS, ids=lambda command: command[0])
def test_a_profile_that_cuts_results_is_refused_by_whoever_reads(
    clickhouse: ClickHouseServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
) -> None:
    clickhouse.profile = {"max_result_rows": "1", "result_overflow_mode": "break"}
    output = ["-o", f"{tmp_path}/report.html"] if command[0] == "report" else []
    assert main([*command, *output]) == 1
    said = capsys.readouterr()
    assert "result_overflow_mode = break" in said.err
    assert said.out == ""


def test_the_health_check_names_a_profile_that_cuts_results(
    clickhouse: ClickHouseServer, invoke: Invoke
) -> None:
    clickhouse.profile = {"result_overflow_mode": "break"}
    answer = invoke({"health_check": True})
    assert answer.status == 503
    assert "result_overflow_mode = break" in answer["clickhouse"]["error"]
