"""`make local`: a shell or a command with S3 and ClickHouse of its own, or nothing at all."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.__main__ import _STATEMENT, _run, _shell
from tests.support.replicas import wait_for

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "local"]
PROMPT = b"(make local) $"
CTRL_C = b"\x03"
HOSTILE = {
    "AWS_PROFILE": "production",
    "AWS_ENDPOINT_URL": "https://s3.example.org",
    "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
    "AWS_ACCESS_KEY_ID": "a-real-one",
    "AWS_SESSION_TOKEN": "a-real-one",
    "CLICKHOUSE_HOST": "clickhouse.example.org",
    "CLICKHOUSE_PASSWORD": "a-real-one",
    "CLICKHOUSE_SECURE": "true",
    "S3_XAPI_BUCKET_NAME": "production-bundles",
    "S3_XAPI_PREFIX": "elsewhere/",
    "POWERTOOLS_SERVICE_NAME": "other",
    "MAKEFLAGS": "n",
    "BASH_ENV": "/elsewhere/startup",
    "HTTP_PROXY": "http://127.0.0.1:1",
    "http_proxy": "http://127.0.0.1:1",
}


@pytest.fixture(autouse=True)
def _nothing_remains(tmp_path: Path) -> Iterator[None]:
    """Every process that a test starts, children included, has its folder in the command line."""
    yield
    wait_for(lambda: not any(str(tmp_path) in args for _, _, args in processes()), 20)


def processes() -> list[tuple[int, int, str]]:
    """Process, parent and command line of everything that runs."""
    listed = subprocess.run(
        ["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True
    )
    rows = (line.split(None, 2) for line in listed.stdout.splitlines()[1:])
    return [(int(row[0]), int(row[1]), row[2]) for row in rows if len(row) == 3]


def services_of(parent: int) -> set[int]:
    return {pid for pid, ppid, args in processes() if ppid == parent and " local." in args}


def local(data: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--data", str(data), *(["--", *command] if command else [])],
        cwd=ROOT,
        env={**os.environ, **HOSTILE, **variables},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def started(data: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run until the block ends, and be killed then."""
    running = subprocess.Popen(
        [*COMMAND, "--data", str(data), "--", *command], cwd=ROOT, stdin=subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.kill()
        running.wait()


@pytest.mark.ci
@pytest.mark.slow
def test_a_command_has_only_local_services_with_which_a_bundle_goes_from_upload_to_query(
    tmp_path: Path,
) -> None:
    # The commands that the greeting names, run in another folder; then the shell is killed.
    steps = f"""
        set -e
        cd {tmp_path}
        python -c 'import json, os; print(json.dumps(dict(os.environ)))' > environment
        echo '{_STATEMENT}' |
            curl --no-progress-meter -T - $AWS_ENDPOINT_URL/my-bundles/section/2001/video/1.jsonl
        python -m xapi_etl_processor health | grep '"warning": null'
        python -m xapi_etl_processor bulk
        python -m local.query "SELECT section_id, verb FROM xapi_analytics.video_events"
        kill -9 $$
    """
    done = local(tmp_path / "data", "sh", "-c", steps)
    assert done.returncode == 128 + signal.SIGKILL, done.stderr
    assert '"video_events_processed": 1' in done.stdout
    assert "2001" in done.stdout
    assert "played" in done.stdout
    found = json.loads((tmp_path / "environment").read_text())
    ours = ("AWS_", "CLICKHOUSE_", "S3_XAPI_", "POWERTOOLS_", "BASH_ENV", "MAKEFLAGS")
    expected = {
        "AWS_ENDPOINT_URL",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "CLICKHOUSE_HOST",
        "CLICKHOUSE_PORT",
        "S3_XAPI_BUCKET_NAME",
        "POWERTOOLS_METRICS_DISABLED",
    }
    assert {name for name in found if name.startswith(ours)} == expected
    assert found["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")
    assert found["CLICKHOUSE_HOST"] == "127.0.0.1"
    assert found["S3_XAPI_BUCKET_NAME"] == "my-bundles"
    assert not {"a-real-one", "production"} & set(found.values())
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_a_missing_command_and_one_that_fails_have_the_code_of_a_shell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("local.__main__.signal.signal", lambda *_: None)
    assert _run(["no-such-command"], {}) == 127
    assert _run(["sh", "-c", "exit 7"], dict(os.environ)) == 7


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("file", "cannot be used as a data folder"),
        pytest.param("data", "local: local.aws did not start", marks=pytest.mark.ci),
    ],
)
def test_where_a_service_does_not_start_nothing_is_run(
    tmp_path: Path, data: str, reason: str
) -> None:
    (tmp_path / "file").touch()
    broken = "import os, sys; 'local.aws' in sys.orig_argv and os._exit(3)"
    (tmp_path / "sitecustomize.py").write_text(broken)
    variables = {"PYTHONPATH": str(tmp_path)} if data == "data" else {}
    done = local(tmp_path / data, "touch", str(tmp_path / "ran"), **variables)
    assert done.returncode == 1
    assert reason in done.stderr
    assert "did not start; nothing was run" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.ci
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        *(("running", number) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGKILL)),
        ("starting", signal.SIGTERM),
    ],
)
def test_services_and_command_end_with_a_signal(
    tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    ready = tmp_path / "ready"
    with started(tmp_path / "data", "sh", "-c", f"touch {ready}; sleep 5") as running:
        begun = ready if moment == "running" else tmp_path / "data"
        wait_for(begun.exists, 60)
        services = services_of(running.pid)
        assert len(services) == 2 or (services and moment == "starting")
        running.send_signal(number)
        # A process that is killed cannot choose its exit code.
        assert running.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
    assert ready.exists() is (moment == "running")
    wait_for(lambda: not services & {pid for pid, _, _ in processes()}, 10)


def at_a_terminal(data: Path, shell: str, *steps: tuple[bytes, bytes]) -> tuple[int, str]:
    """Exit code and all that was shown, of a shell; a step is what to wait for and then type."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        variables = {**os.environ, **HOSTILE, "SHELL": shell, "TERM": "dumb"}
        os.execve(COMMAND[0], [*COMMAND, "--data", str(data)], variables)  # noqa: S606
    shown, seen, typed, waiting = b"", 0, b"", list(steps)
    try:
        while True:
            while not select.select([terminal], [], [], 0.5)[0]:
                # One that comes while bash hands over the terminal can be lost, as it can by hand.
                if typed == CTRL_C:
                    os.write(terminal, CTRL_C)
            if not (chunk := os.read(terminal, 4096)):
                break
            shown += chunk
            while waiting and (found := shown.find(waiting[0][0], seen)) >= 0:
                expected, typed = waiting.pop(0)
                seen = found + len(expected)
                os.write(terminal, typed)
    except OSError:
        pass  # Linux reports the end of a terminal like this.
    finally:
        os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode()


@pytest.mark.ci
def test_a_shell_greets_survives_ctrl_c_ends_with_exit_and_reads_no_startup_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".bashrc", ".profile"):
        (tmp_path / name).write_text("export S3_XAPI_BUCKET_NAME=production-bundles\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    code, shown = at_a_terminal(
        tmp_path / "data",
        "/bin/bash",
        (PROMPT, b"sh -c 'echo started; sleep 100'\r"),
        (b"started\r\n", CTRL_C),
        (PROMPT, b"echo $CLICKHOUSE_HOST.$S3_XAPI_BUCKET_NAME; exit 3\r"),
    )
    assert "bucket my-bundles" in shown
    assert "127.0.0.1.my-bundles" in shown
    assert code == 0


def test_a_shell_that_is_not_there_is_replaced_by_sh() -> None:
    assert _shell("/none") == _shell("/bin/sh") == ["/bin/sh"]


def test_make_local_runs_a_command_as_it_is_written(tmp_path: Path) -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "local", "CMD=echo '$HOME' \"two  words\""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # As make runs it, with echo in the place of python.
    recipe = planned.splitlines()[-1].replace("-m local", "").replace(".venv/bin/python", "echo")
    assert "CMD" in recipe
    shown = subprocess.run(
        ["sh", "-c", recipe],
        env={"CMD": "echo '$HOME' \"two  words\"", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.strip() == "-- sh -c echo '$HOME' \"two  words\""
