"""`make run`, `make query`, `make serve` and `make clean`: the demo has a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_driver import Client

from local import process
from tests.support.shared import locked, shared_folder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COPIED = ("local", "xapi_etl_processor", "deployment")


def run(checkout: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "NO_COLOR": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def demo(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(checkout, sys.executable, "test_unified_lambda.py", **variables)


def query(checkout: Path, sql: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run(checkout, sys.executable, "-m", "local.query", *options, "--", sql)


def copied(folder: Path) -> Path:
    """A checkout of its own, whose .local a test may change."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "test_unified_lambda.py", folder)
    return folder


@pytest.fixture
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout in which the demo ran, beside data that a person loaded.

    All processes of the test run have the same one, and use it in turn: a data folder has one user
    at a time.
    """
    folder = shared_folder(tmp_path_factory, "demo")
    with locked(folder):
        if not (folder / "checkout/shown").exists():
            # A process that did not finish it may have left a part.
            shutil.rmtree(folder / "checkout", ignore_errors=True)
            with_a_demo(folder / "checkout")
        yield folder / "checkout"


def with_a_demo(folder: Path) -> None:
    """Make a checkout with data of a person's own, and run the demo in it."""
    copied(folder)
    with process.clickhouse(folder / ".local/clickhouse") as port, Client("127.0.0.1", port) as own:
        own.execute("CREATE TABLE default.mine (a UInt8) ENGINE = MergeTree ORDER BY a")
        own.execute("INSERT INTO default.mine SELECT 42")
    (folder / ".local/demo").mkdir()
    (folder / ".local/demo/stale").touch()
    # None of these may lead the demo elsewhere.
    done = demo(
        folder,
        AWS_PROFILE="production",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        CLICKHOUSE_HOST="clickhouse.example.org",
        CLICKHOUSE_SECURE="true",
        S3_XAPI_PREFIX="elsewhere/",
        HTTP_PROXY="http://127.0.0.1:1",
        http_proxy="http://127.0.0.1:1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "shown").write_text(done.stdout)


def test_the_demo_keeps_what_a_person_loaded(checkout: Path) -> None:
    with (
        process.clickhouse(checkout / ".local/clickhouse") as port,
        Client("127.0.0.1", port) as own,
    ):
        assert own.execute("SELECT a FROM default.mine") == [(42,)]
        assert own.execute("SHOW DATABASES LIKE 'xapi%'") == []


def test_the_demo_rebuilds_its_folder_and_says_so(checkout: Path) -> None:
    shown = (checkout / "shown").read_text()
    assert not (checkout / ".local/demo/stale").exists()
    assert "Rebuilding the demo in .local/demo" in shown
    for command in ("make query SQL=", "make serve", "make local", "make test"):
        assert command in shown


def test_a_demo_that_is_served_is_left_alone(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    with process.clickhouse(folder / ".local/demo") as port, Client("127.0.0.1", port) as served:
        served.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        done = demo(folder)
        assert done.returncode == 1
        assert "if it is being served, ask that server, or stop it" in done.stdout
        assert served.execute("SHOW TABLES FROM default") == [("t",)]


def test_a_query_shows_the_demo_as_a_table(checkout: Path) -> None:
    done = query(
        checkout,
        "SELECT section_id, count() AS statements, NULL AS nothing, '[b]' AS text"
        " FROM xapi_analytics.video_statements GROUP BY 1 ORDER BY 1",
    )
    assert done.returncode == 0, done.stderr
    header, *rows = (
        line.replace("┃", "│").split("│") for line in done.stdout.splitlines() if line[0] in "┃│"
    )
    assert [name.strip() for name in header[1:-1]] == [
        "section_id",
        "statements",
        "nothing",
        "text",
    ]
    assert [row[1].strip() for row in rows] == ["2001", "2002", "2003"]
    assert [row[3].strip() for row in rows] == ["NULL"] * 3
    assert [row[4].strip() for row in rows] == ["[b]"] * 3


def test_rows_wider_than_the_screen_are_shown_one_field_a_line(checkout: Path) -> None:
    sql = "SELECT * FROM xapi_analytics.video_statements LIMIT 2"
    done = run(checkout, sys.executable, "-m", "local.query", sql, COLUMNS="100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Row ")] == ["Row 1", "Row 2"]
    assert sum(line.split()[:1] == ["section_id"] for line in lines) == 2


def test_a_long_answer_is_cut_and_says_so(checkout: Path) -> None:
    done = query(checkout, "SELECT number FROM numbers(1000000)")
    assert done.returncode == 0
    assert "Only the first 1,000 rows are shown" in done.stdout
    assert len(done.stdout.splitlines()) < 1010


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE default.mine (a UInt8) ENGINE = Memory", "DROP DATABASE xapi_analytics"]
)
def test_a_query_cannot_change_the_demo(checkout: Path, sql: str) -> None:
    done = query(checkout, sql)
    assert done.returncode == 1
    assert "make local" in done.stderr
    assert "READONLY" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_query_that_is_wrong_is_answered_with_the_reason(checkout: Path) -> None:
    done = query(checkout, "SELECT nope")
    assert done.returncode == 1
    assert "nope" in done.stderr
    assert "Stack trace" not in done.stderr


def test_an_empty_query_is_an_error(checkout: Path) -> None:
    assert query(checkout, " ").returncode == 2


@pytest.mark.parametrize("command", [["query", "SELECT 1"], ["clickhouse_server", "--read-only"]])
def test_without_a_demo_one_is_told_how_to_make_it(tmp_path: Path, command: list[str]) -> None:
    module, argument = command
    options = ["--data", str(tmp_path / "none")]
    done = run(ROOT, sys.executable, "-m", f"local.{module}", *options, argument)
    assert done.returncode == 1
    assert "make run" in done.stderr
    assert not (tmp_path / "none").exists()


def test_what_make_serve_starts_is_read_only() -> None:
    planned = run(ROOT, "make", "--dry-run", "serve").stdout
    assert "local.clickhouse_server --data .local/demo --read-only" in planned


def test_a_query_asks_the_server_that_serves_the_folder(tmp_path: Path) -> None:
    with process.clickhouse(tmp_path) as port, Client("127.0.0.1", port) as own:
        own.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        own.execute("INSERT INTO default.t VALUES (41)")
        options = ["--data", str(tmp_path)]
        done = run(ROOT, sys.executable, "-m", "local.query", *options, "SELECT a + 1 FROM t")
        assert (done.returncode, "42" in done.stdout) == (0, True), done.stderr
        assert done.stderr == ""
    # What a server that was killed leaves behind.
    (tmp_path / "served_on_port").write_text("1")
    done = run(ROOT, sys.executable, "-m", "local.query", *options, "SELECT a + 1 FROM t")
    assert (done.returncode, "42" in done.stdout) == (0, True), done.stderr


def test_make_clean_keeps_a_persons_own_data_and_says_where_it_is(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".venv", ".local/demo", ".local/clickhouse", ".pytest_cache"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".local/clickhouse/mine").touch()
    done = run(tmp_path, "make", "clean")
    assert done.returncode == 0, done.stderr
    assert ".local/clickhouse" in done.stdout.splitlines()[-1]
    assert {path.name for path in tmp_path.iterdir()} == {"Makefile", ".local"}
    assert [path.name for path in (tmp_path / ".local").iterdir()] == ["clickhouse"]
    assert (tmp_path / ".local/clickhouse/mine").exists()


def test_make_clean_leaves_nothing_where_there_is_no_data(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".local/demo").mkdir(parents=True)
    assert run(tmp_path, "make", "clean").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
