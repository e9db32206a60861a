"""What is written about the project is what the project is."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.samples import BAD_LINE, other, video
from xapi_etl_processor import reference
from xapi_etl_processor.cli import main
from xapi_etl_processor.config import Settings
from xapi_etl_processor.modes import bulk
from xapi_etl_processor.storage.migrations import migrate
from xapi_etl_processor.xapi.columns import COLUMNS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_readmes_tables_are_those_of_the_code() -> None:
    assert reference.rewritten(README) == README


def test_the_migrated_table_has_the_columns_types_and_comments_of_the_column_table(
    settings: Settings, ask: Ask
) -> None:
    found = ask(
        "SELECT name, type, comment FROM system.columns WHERE table = 'video_events'"
        " AND database = currentDatabase() ORDER BY position"
    )
    assert found == [[column.name, column.type, column.comment] for column in COLUMNS]


def test_migrating_says_what_it_did_and_the_second_time_does_nothing(
    unmigrated: Settings, ask: Ask
) -> None:
    assert migrate(unmigrated) == ["0001_tables.sql"]
    assert migrate(unmigrated) == []
    assert ask("EXISTS TABLE video_events") == [[1]]


def test_every_bulk_parameter_is_in_the_readme_and_in_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["bulk", "--help"])
    shown = capsys.readouterr().out
    for name in (*bulk.PARAMETERS, "bucket"):
        assert f"`{name}`" in README
        word = {"force_reprocess": "force", "continuation_token": "token"}.get(name, name)
        word = re.sub("_(id|date)$", "", word).removeprefix("s3_")
        assert f"--{word.replace('_', '-')}" in shown


def test_the_readmes_event_answer_has_the_keys_of_the_real_one(
    bucket: Bucket, invoke: Invoke
) -> None:
    key = bucket.put("section/1/video/a.jsonl", video(1), other(1), BAD_LINE)
    answer = invoke({"bucket": bucket.name, "key": key})
    shown = json.loads(re.findall(r"```json\n(\{\"success\".*?)```", README, re.DOTALL)[0])
    assert shown.keys() == answer.body.keys()
    assert shown["events_processed"] == shown["video_events_processed"] + shown["other_events"]


def test_the_readmes_health_answer_has_the_keys_of_the_real_one(invoke: Invoke) -> None:
    answer = invoke({"health_check": True})
    shown = json.loads(re.findall(r"```json\n(\{\"healthy\".*?)```", README, re.DOTALL)[0])
    assert shown.keys() == answer.body.keys()
    assert shown["clickhouse"].keys() == answer["clickhouse"].keys()


def test_the_readmes_queries_run(settings: Settings, ask: Ask) -> None:
    queries = [
        sql
        for block in re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
        for sql in block.split(";")
        if sql.strip()
    ]
    assert len(queries) == 4
    for sql in queries:
        ask(sql.replace("xapi_analytics", settings.clickhouse_database))


def test_every_make_target_of_the_readme_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z]+)\b", README)) <= targets


def test_the_package_imports_nothing_that_the_deployment_lacks() -> None:
    """Only what pyproject.toml calls dependencies, and boto3, may be imported at the top."""
    import subprocess

    code = (
        "import sys; import xapi_etl_processor.lambda_function;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert {"clickhouse_driver", "msgspec", "aws_lambda_powertools", "boto3"} <= loaded
    local_only = {"chdb", "moto", "rich", "clickhouse_migrations", "pytest", "local", "pandas"}
    assert not loaded & local_only
