"""What the pages say is true: tables, payloads, queries, commands, limits, links and paths."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from docs import reference
from tests.conftest import Ask, Bucket, Invoke, Template
from tests.engines.versions import ENGINES
from tests.queues.test_promised_payloads import BULK, HEALTH_CHECK
from tests.support.samples import BAD_LINE, VIDEO, other, video, voiding
from xapi_etl_processor.base import clickhouse_errors
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.bulk import request
from xapi_etl_processor.cli import main
from xapi_etl_processor.lambda_function import mode_of
from xapi_etl_processor.xapi.columns import COLUMNS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "dashboards/README.md",
        *sorted(ROOT.glob("docs/*.md")),
    )
}
PLACES = ("xapi_etl_processor", "tests", "local", "deployment", "benchmarks", "dashboards", "docs")
UNITS = {"MiB": 1024**2}


def blocks(language: str, page: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def prose(page: str) -> str:
    """A page without its fenced blocks, whose comments look like headings."""
    return re.sub(r"```.*?```", "", page, flags=re.DOTALL)


def of_every_page(pattern: str) -> list[Any]:
    """All matches in all pages; there must be some."""
    found = [match for page in PAGES.values() for match in re.findall(pattern, page, re.M)]
    assert found
    return found


def test_the_generated_tables_are_those_of_the_code_and_others_are_reported(tmp_path: Path) -> None:
    assert reference.outdated(ROOT) == []
    for name in reference.PAGES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(PAGES[name].replace("| `9000` |", "| `9001` |"))
    assert reference.outdated(tmp_path) == ["docs/configuration.md"]


def test_the_migrated_table_has_the_columns_types_and_comments_of_the_column_table(
    settings: Settings, ask: Ask
) -> None:
    found = ask(
        "SELECT name, type, comment FROM system.columns WHERE table = 'video_events'"
        " AND database = currentDatabase() AND default_kind != 'MATERIALIZED' ORDER BY position"
    )
    assert found == [[column.name, column.type, column.comment] for column in COLUMNS]


def test_every_bulk_parameter_is_in_the_readme_and_in_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown = ""
    for command in ("bulk", "verify"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        shown += f"--{command} {capsys.readouterr().out}"
    for name in (*request.PARAMETERS, "bucket"):
        assert f"`{name}`" in README
        other = {"force_reprocess": "force", "continuation_token": "token"}
        word = {**other, "categories": "category"}.get(name, name)
        word = re.sub("_(id|date)$", "", word).removeprefix("s3_")
        assert f"--{word.replace('_', '-')}" in shown


def test_the_readme_is_short_and_shows_a_payload_of_every_mode_and_the_promised_ones() -> None:
    assert len(README.splitlines()) <= 260
    shown = [json.loads(block) for block in blocks("json", README)]
    assert json.loads(BULK) in shown
    assert json.loads(HEALTH_CHECK) in shown
    payloads = [p for p in shown if "success" not in p and "healthy" not in p]
    assert [mode_of(payload) for payload in payloads] == ["event", "bulk", "health_check"]


@pytest.mark.slow
def test_the_readmes_answers_have_the_keys_of_the_real_ones(bucket: Bucket, invoke: Invoke) -> None:
    event, health = (
        json.loads(re.findall(rf"```json\n(\{{\"{first}\".*?)```", README, re.DOTALL)[0])
        for first in ("success", "healthy")
    )
    key = bucket.put("section/1/video/a.jsonl", video(1), other(1), BAD_LINE)
    assert event.keys() == invoke({"bucket": bucket.name, "key": key}).body.keys()
    assert event["events_processed"] == event["video_events_processed"] + event["other_events"]
    answer = invoke({"health_check": True})
    assert health.keys() == answer.body.keys()
    for service in ("clickhouse", "s3"):
        assert health[service].keys() == answer[service].keys()


@pytest.mark.slow
def test_the_queries_of_all_pages_run(watching: Settings, template: Template, ask: Ask) -> None:
    ask(f"CREATE TABLE schema_versions AS {template.database}.schema_versions")
    queries = [
        sql
        for page in PAGES.values()
        for block in blocks("sql", page)
        for sql in block.split(";")
        if sql.strip()
    ]
    assert len(queries) == 17
    queries += of_every_page(r'make query SQL="([^"]+)"')
    for sql in queries:
        # A new database has no table of version 0.1: tests/migrations/test_migrate.py compares it.
        there = sql.replace("video_events_old", "video_events")
        ask(there.replace("xapi_analytics", watching.clickhouse_database))


@pytest.mark.slow
def test_the_sample_query_counts_each_viewer_once_and_no_voided_statement(
    bucket: Bucket, invoke: Invoke, watching: Settings, ask: Ask
) -> None:
    """A video of 46 seconds, two viewers of the same name, one of them in two sessions."""

    def completed(number: int, home_page: str, session: str) -> dict[str, Any]:
        return video(
            number,
            actor={"account": {"name": "7", "homePage": home_page}},
            verb={"id": "https://w3id.org/xapi/video/verbs/completed"},
            result={"extensions": {VIDEO + "played-segments": "0[.]46"}},
            context={"extensions": {VIDEO + "session-id": session}},
        )

    ours, theirs = "https://ours.example.org", "https://theirs.example.org"
    bucket.put(
        "section/2001/video/2024-01-01T12-00-00Z_1.jsonl",
        completed(1, ours, "one"),
        completed(2, ours, "two"),
        video(3, actor={"account": {"name": "7", "homePage": theirs}}),
        completed(4, theirs, "three"),
        voiding(4),
    )
    invoke({"mode": "bulk"})
    sql = blocks("sql", PAGES["docs/tables.md"])[0].strip().rstrip(";")
    sql = sql.replace("xapi_analytics", watching.clickhouse_database)
    assert ask(f"SELECT played, completions FROM ({sql})") == [[2, 1]]


def test_no_page_reads_events_without_the_view_or_final() -> None:
    for name, page in PAGES.items():
        # A materialized view is told of what is inserted, whatever is in the table.
        read = re.sub(r"CREATE MATERIALIZED VIEW .*?;", "", page, flags=re.DOTALL)
        for sql in re.findall(r"FROM xapi_analytics\.video_events\b.*", read):
            assert sql.startswith("FROM xapi_analytics.video_events FINAL"), name


def test_every_make_target_in_the_pages_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?\bmake ([a-z]+)\b", README)) <= targets
    assert set(of_every_page(r"`make ([a-z]+)\b")) <= targets
    commands = [
        target
        for page in PAGES.values()
        for block in blocks("sh", page)
        for target in re.findall(r"\bmake ([a-z]+)\b", block)
    ]
    assert {"run", "test", "local", "migrate", "drill", "fuzz"} <= set(commands) <= targets


def test_every_option_of_deploy_sh_in_the_pages_exists() -> None:
    script = (ROOT / "deploy.sh").read_text()
    for option in of_every_page(r"deploy\.sh (--[a-z-]+)") + of_every_page(r"^\| `(--[a-z-]+)"):
        # As a pattern of its `case`.
        assert re.search(rf" {option}( \||\))", script), option


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(words.replace(" ", "-"))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_every_link_and_path_of_a_page_is_to_something_that_exists(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(PAGES[name])):
        if target.startswith("https://"):
            continue
        file, _, anchor = unquote(target).partition("#")
        path = ((ROOT / name).parent / file).resolve() if file else ROOT / name
        assert path.exists(), target
        assert path.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path.read_text()), target
    text = PAGES[name]
    # In full anywhere, or in backquotes from the root or inside the package.
    paths = re.findall(rf"(?<![\w/.-])((?:{'|'.join(PLACES)})/[\w./-]*)", text)
    paths += re.findall(r"`([\w./-]+\.(?:py|sql|md|sh|toml|txt|yaml))`", text)
    for named in paths:
        file = named.rstrip(".")
        assert (ROOT / file).exists() or (ROOT / "xapi_etl_processor" / file).exists(), named


def test_every_module_that_the_pages_run_exists() -> None:
    for module in set(of_every_page(r"python3? -m ([\w.]+)")) - {"pytest"}:
        assert importlib.util.find_spec(module), module
        assert module.partition(".")[0] in PLACES, module


def test_the_fixed_limits_are_those_of_the_code() -> None:
    rows = re.findall(
        r"^\| .+ \| ([\d,]+)(?: (\w+))? \| `([\w.]+)\.([A-Z0-9_]+)` \|$",
        PAGES["docs/configuration.md"],
        re.MULTILINE,
    )
    assert len(rows) >= 20
    for number, unit, module, constant in rows:
        found = getattr(importlib.import_module(f"xapi_etl_processor.{module}"), constant)
        assert int(number.replace(",", "")) * UNITS.get(unit, 1) == found, constant
    ((variable, text),) = re.findall(
        r"largest `([A-Z0-9_]+)` \| ([\d,]+)(?: MiB)? \|", PAGES["docs/configuration.md"]
    )
    # tests/base/test_config.py checks the highest values of the code.
    assert (variable, text) == ("BATCH_ROWS", "1,000,000")


@pytest.mark.slow
def test_the_package_imports_nothing_that_the_deployment_lacks() -> None:
    """Only what pyproject.toml calls dependencies may be imported at the top."""
    code = (
        "import sys; import xapi_etl_processor.lambda_function;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert {"clickhouse_driver", "msgspec", "aws_lambda_powertools", "obstore"} <= loaded
    assert not loaded & {"chdb", "moto", "rich", "clickhouse_migrations", "pytest", "local"}
    assert not loaded & {"pandas", "boto3"}


def test_the_versions_that_are_said_to_be_tried_are_those_that_are_tried() -> None:
    rows = re.findall(r"^\| (\d+\.\d+)( \(LTS\))? \| (.*) \|$", PAGES["docs/clickhouse.md"], re.M)
    said = {(version, bool(lts)): text for version, lts, text in rows}
    assert list(said) == list(
        dict.fromkeys((engine.version, engine.lts) for engine in ENGINES if not engine.old_analyzer)
    )
    for engine in ENGINES:
        text = said[engine.version, engine.lts]
        assert ("with each change" in text) >= engine.ci
        assert all(f"`{step}` is left out" in text for step in engine.without)


def test_the_oldest_version_is_the_same_everywhere() -> None:
    oldest = ENGINES[0].version
    assert f"Use {oldest} or later" in PAGES["docs/clickhouse.md"]
    assert re.search(rf"must be {oldest} or\s+later", PAGES["docs/configuration.md"])
    assert clickhouse_errors.CODES[62].remedy == f"use ClickHouse {oldest} or later"
