"""`make run`, `make query`, `make serve` and `make clean`: the demo has a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clickhouse_driver import Client

from local import PORT_VARIABLE, clickhouse_server, process, query
from local.clickhouse_server import ClickHouseServer

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


@pytest.mark.ci
@pytest.mark.slow
def test_the_demo_changes_its_own_folder_only_and_no_variable_leads_it_elsewhere(
    tmp_path: Path,
) -> None:
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "test_unified_lambda.py", tmp_path)
    data = tmp_path / ".local"
    with process.clickhouse(data / "clickhouse") as port, Client("127.0.0.1", port) as own:
        own.execute("CREATE TABLE default.mine (a UInt8) ENGINE = MergeTree ORDER BY a")
        own.execute("INSERT INTO default.mine SELECT 42")
    (data / "demo").mkdir()
    (data / "demo/stale").touch()
    demo = (sys.executable, "test_unified_lambda.py")
    done = run(
        tmp_path,
        *demo,
        AWS_PROFILE="production",
        AWS_ENDPOINT_URL="http://127.0.0.1:1",
        CLICKHOUSE_HOST="clickhouse.example.org",
        CLICKHOUSE_SECURE="true",
        S3_XAPI_PREFIX="elsewhere/",
        HTTP_PROXY="http://127.0.0.1:1",
        http_proxy="http://127.0.0.1:1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Rebuilding the demo in .local/demo" in done.stdout
    # Seven bundles repeat a line.
    assert "Section 2001: 938 statements loaded, 931 shown: 7 lines repeat" in done.stdout
    for command in ("make query SQL=", "make serve", "make local", "make test"):
        assert command in done.stdout
    assert not (data / "demo/stale").exists()
    with process.clickhouse(data / "clickhouse") as port, Client("127.0.0.1", port) as own:
        assert own.execute("SELECT a FROM default.mine") == [(42,)]
        assert own.execute("SHOW DATABASES LIKE 'xapi%'") == []
    with process.clickhouse(data / "demo", "--read-only") as port:
        done = run(tmp_path, *demo)
        assert done.returncode == 1
        assert "if it is being served, ask that server, or stop it" in done.stdout
        with Client("127.0.0.1", port) as served:
            sections = served.execute(
                "SELECT DISTINCT section_id FROM xapi_analytics.video_statements ORDER BY 1"
            )
    assert sections == [(2001,), (2002,), (2003,)]


Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """What `make query` answers: its code, and what it printed on both streams."""

    def asked(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["query", *arguments])
        return query.main(), *capsys.readouterr()

    return asked


@pytest.fixture
def inside_make_local(
    clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A server that asks for no password, which `make query` finds."""
    server = ClickHouseServer(Path(clickhouse.path)).start()
    monkeypatch.setenv(PORT_VARIABLE, str(server.port))
    yield
    server.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("inside_make_local")
def test_an_answer_is_a_table_or_a_field_a_line_or_csv_and_an_error_has_its_reason(
    asked: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, shown, _ = asked("SELECT number AS n, NULL AS nothing, '[b]' AS text FROM numbers(2)")
    assert code == 0
    header, *rows = (
        [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]
        for line in shown.splitlines()
        if line[0] in "┃│"
    )
    assert header == ["n", "nothing", "text"]
    assert rows == [["0", "NULL", "[b]"], ["1", "NULL", "[b]"]]
    code, shown, _ = asked("SELECT number FROM numbers(1000000)")
    assert code == 0
    assert "Only the first 1,000 rows are shown" in shown
    assert len(shown.splitlines()) < 1010
    monkeypatch.setenv("COLUMNS", "100")
    code, shown, _ = asked("SELECT number AS section_id, repeat('x', 90) AS title FROM numbers(2)")
    assert code == 0
    lines = shown.splitlines()
    assert [line for line in lines if line.startswith("Row ")] == ["Row 1", "Row 2"]
    assert sum(line.split()[:1] == ["section_id"] for line in lines) == 2
    asked_for = "SELECT number AS n, NULL AS nothing, 'a, \"b\"' AS text FROM numbers(1001)"
    code, shown, _ = asked("--format", "csv", asked_for)
    names, first, *others = shown.splitlines()
    assert (code, names, first) == (0, "n,nothing,text", '0,,"a, ""b"""')
    assert (len(others), others[-1]) == (1000, '1000,,"a, ""b"""')
    code, _, reason = asked("SELECT nope")
    assert code == 1
    assert "nope" in reason
    assert "Stack trace" not in reason
    code, _, reason = asked(" ")
    assert code == 2
    assert "the query is empty" in reason


@pytest.mark.slow
def test_a_query_asks_the_server_of_a_folder_or_reads_the_folder_and_cannot_change_it(
    tmp_path: Path, asked: Ask
) -> None:
    options = ["--data", str(tmp_path)]
    with process.clickhouse(tmp_path) as port, Client("127.0.0.1", port) as own:
        own.execute("CREATE TABLE default.t (a UInt8) ENGINE = MergeTree ORDER BY a")
        own.execute("INSERT INTO default.t VALUES (41)")
        code, shown, complaint = asked(*options, "SELECT a + 1 FROM t")
        assert (code, "42" in shown, complaint) == (0, True, "")
    # What a server that was killed leaves behind.
    (tmp_path / "served_on_port").write_text("1")
    done = run(ROOT, sys.executable, "-m", "local.query", *options, "DROP TABLE t")
    assert done.returncode == 1
    assert "make local" in done.stderr
    assert "READONLY" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_demo_one_is_told_how_to_make_it(
    tmp_path: Path,
    asked: Ask,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--data", str(tmp_path / "none")]
    code, _, reason = asked(*options, "SELECT 1")
    assert (code, "make run" in reason) == (1, True)
    planned = run(ROOT, "make", "--dry-run", "serve").stdout
    assert "local.clickhouse_server --data .local/demo --read-only" in planned
    monkeypatch.setattr("sys.argv", ["clickhouse_server", "--read-only", *options])
    monkeypatch.setattr(clickhouse_server, "StopRequest", lambda **_: None)
    assert clickhouse_server.main() == 1
    assert "make run" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_make_clean_keeps_a_persons_own_data_and_says_where_it_is(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in (".venv", ".local/demo", ".local/clickhouse", ".pytest_cache"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / ".local/clickhouse/mine").touch()
    done = run(tmp_path, "make", "clean")
    assert done.returncode == 0, done.stderr
    assert ".local/clickhouse" in done.stdout.splitlines()[-1]
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"Makefile", ".local", ".local/clickhouse", ".local/clickhouse/mine"}
    shutil.rmtree(tmp_path / ".local/clickhouse")
    assert run(tmp_path, "make", "clean").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["Makefile"]
