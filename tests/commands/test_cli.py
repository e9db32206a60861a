"""The command line: the same functions, with answers and exit codes for people and scripts."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path

import boto3
import pytest

from tests.conftest import PASSWORD, Ask, Bucket, Cli
from tests.support.dirty import Dirty
from tests.support.samples import BAD_LINE, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.commands import output
from xapi_etl_processor.commands.output import print_json
from xapi_etl_processor.migrations import migrate

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.mark.slow
def test_migrate_says_what_it_did_and_refuses_a_schema_whose_applied_files_were_edited(
    unmigrated: Settings,
    aws_environment: dict[str, str],
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """It takes the password from the secret."""
    arn = boto3.client("secretsmanager").create_secret(
        Name=f"password-{time.monotonic_ns()}", SecretString=PASSWORD
    )["ARN"]
    monkeypatch.setenv("CLICKHOUSE_PASSWORD_SECRET_ARN", arn)
    monkeypatch.setenv("CLICKHOUSE_PASSWORD", "wrong")
    (tmp_path / "no_views.sql").write_text("")
    monkeypatch.setattr(migrate, "VIEWS", tmp_path / "no_views.sql")
    found = cli("migrate").json
    assert found["applied"][0] == "0001_tables.sql"
    assert (found["database"], found["host"]) == (unmigrated.clickhouse_database, "127.0.0.1")
    assert cli("migrate").json == found | {"applied": []}
    edited = tmp_path / "schema"
    shutil.copytree(migrate.SCHEMA, edited)
    first = edited / "0001_tables.sql"
    first.write_text(first.read_text() + "\n-- edited\n")
    monkeypatch.setattr(migrate, "SCHEMA", edited)
    said = cli("migrate", code=1).err.strip().splitlines()
    assert f"{unmigrated.clickhouse_database} on 127.0.0.1 not migrated: " in said[-1]
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    said = cli("migrate", code=1).err.strip().splitlines()
    assert "not migrated" in said[-1]
    assert "Traceback" not in said[-1]


@pytest.mark.slow
def test_event_processes_the_named_objects(
    bucket: Bucket, settings: Settings, ask: Ask, cli: Cli
) -> None:
    bucket.put(KEY, video(1), BAD_LINE)
    assert cli("event", bucket.uri(KEY), "--dry-run").json["video_events_processed"] == 1
    assert ask("SELECT count() FROM video_events") == [[0]]
    assert cli("event", bucket.uri(KEY)).json["rejected_lines"] == 1
    assert cli("event", bucket.uri(KEY)).json["files_skipped"] == 1
    assert cli("event", bucket.uri(KEY), "--force").json["files_processed"] == 1
    assert ask("SELECT count() FROM video_events FINAL") == [[1]]
    # An object may have any name, and one that is missing is named.
    odd = bucket.uri(bucket.put("section/1/restored.jsonl.old", video(1)))
    found = cli("event", odd, bucket.uri("section/1/gone.jsonl"), code=1).json
    assert found["files_processed"] == 1
    assert "does not exist" in found["failures"][0]["error"]


def test_bulk_tells_now_and_then_how_far_it_is(
    bucket: Bucket,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
) -> None:
    monkeypatch.setattr(output, "TOLD_SECONDS", 0)
    bucket.put("section/1/video/a.jsonl", video(1), other(1))
    assert "1 object, 2 statements so far" in cli("bulk").err
    assert "1 object so far" in cli("verify").err
    bucket.put("section/7/video/a.json", video(1))
    ignored = "'section/7/'; ignored 1 object not ending in .jsonl or .jsonl.gz"
    assert ignored in cli("bulk", "--section", "7").err


def test_bulk_that_finds_nothing_says_where_it_looked_and_what_there_is(
    on_dirty: Dirty, cli: Cli
) -> None:
    said = cli("bulk", "--dry-run", "--section", "2001", "--category", "none").err
    days = "the ledger has days from 2024-03-01 to 2024-03-03\n"
    assert said.endswith(f"nothing found under 'section/2001/': {days}")
    assert cli("bulk", "--dry-run", "--section", "201").err.endswith(
        "the ledger has no section 201; nearest: 2001, 1 (2 in all), and days from 2019-05-06"
        " to 2024-03-03\n"
    )


def test_characters_that_steer_a_terminal_are_printed_as_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DEL, the C1 controls, and those that turn the direction of writing (Unicode TR 36)."""
    steering = [0x7F, 0x80, 0x9F, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    print_json(["".join(map(chr, steering)) + "é章"])
    shown = "".join(f"\\u{code:04x}" for code in steering)
    assert capsys.readouterr().out == f'[\n  "{shown}é章"\n]\n'


@pytest.mark.usefixtures("pauses")
def test_without_a_server_logs_go_to_standard_error_and_only_the_answer_to_standard_output(
    settings: Settings, bucket: Bucket, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger.handlers[0], "stream", sys.stdout)
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    out, err = cli("health", code=1)
    assert json.loads(out)["healthy"] is False
    assert "trying again" in err
    bucket.put_each("section/1/video/a.jsonl")
    assert "no object could be processed: ClickHouse at 127.0.0.1:1" in cli("bulk", code=1).err


def test_a_bucket_that_is_not_allowed_or_not_set_has_exit_code_2(
    settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = ["event", "s3://another-bucket/section/1/a.jsonl"]
    for arguments in event, ["bulk", "--bucket", "x-y"]:
        assert "is not a bucket of bundles" in "".join(cli(*arguments, code=2)), arguments
    monkeypatch.delenv("S3_XAPI_BUCKET_NAME")
    for arguments in event, ["bulk"], ["health"]:
        assert "S3_XAPI_BUCKET_NAME is not set" in "".join(cli(*arguments, code=2)), arguments
    monkeypatch.delenv("CLICKHOUSE_HOST")
    assert "CLICKHOUSE_HOST is not set" in cli("health", code=2).err


@pytest.mark.slow
def test_health_has_exit_code_0_when_healthy_and_1_when_not_and_logs_at_the_level_that_is_set(
    settings: Settings, ask: Ask, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    for given, level in (None, "WARNING"), ("debug", "DEBUG"), ("ERROR", "ERROR"), ("", "WARNING"):
        if given is not None:
            monkeypatch.setenv("LOG_LEVEL", given)
        assert cli("health").json["healthy"] is True
        assert logger.log_level == getattr(logging, level)
    ask("DROP TABLE video_events")
    assert cli("health", code=1).json["clickhouse"]["schema"] == "missing"
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    assert "LOG_LEVEL is 'LOUD'" in cli("health", code=2).err


def test_an_invalid_request_has_exit_code_2_and_a_message(settings: Settings, cli: Cli) -> None:
    for source, said in (
        ("https://bucket/file.jsonl", "use s3://bucket/key"),
        ("s3:///file.jsonl", "use s3://bucket/key"),
        ("folder/file.jsonl", "cannot be read (No such file or directory)"),
        ("s3://bucket-only", "use s3://bucket/key"),
        ("s3://bucket/section/2001/", "bulk for a folder"),
        (".", "is a folder"),
    ):
        assert said in cli("event", source, code=2).err


def test_help_has_commands_exit_codes_and_an_example_of_each_command(cli: Cli) -> None:
    commands = ["migrate", "event", "bulk", "explain", "report", "health"]
    for arguments in ([], *([name] for name in commands)):
        shown = cli(*arguments, "--help").out
        if arguments:
            example = shown.partition("\nExample")[2]
            assert f"python -m xapi_etl_processor {arguments[0]}" in example
        else:
            for word in (*commands, "exit codes:", "CLICKHOUSE_HOST"):
                assert word in shown
