"""Try the dashboard in a Superset of your own: on the demo's data, until Ctrl-C.

    make superset [CHECK=--check]

Every chart's query must answer, or the exit code is 1. With --check, that is all.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import secrets
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from for_superset import CHARTS, write

ROOT = Path(__file__).parents[1]
PORT = 8088
CONFIG = """
import os
SECRET_KEY = os.urandom(32).hex()
SQLALCHEMY_DATABASE_URI = "sqlite:///" + os.environ["SUPERSET_HOME"] + "/superset.db"
"""


class Failed(Exception):
    """The demo or Superset does not work as it must; the message says why."""


@contextmanager
def clickhouse() -> Iterator[int]:
    """The demo's tables on a free port, served by this project's own environment."""
    options = "--data .local/demo --read-only --port 0 --stop-with-parent"
    command = [f"{ROOT}/.venv/bin/python", "-m", "local.clickhouse_server", *options.split()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as server:  # noqa: S603
        try:
            found = re.search(rb"127\.0\.0\.1:(\d+)", server.stdout.readline())  # type: ignore[union-attr]
            if not found:
                raise Failed("ClickHouse did not start")
            yield int(found[1])
        finally:
            server.terminate()


def prepared(home: str, password: str, port: int) -> Any:
    """Superset's app with tables and a user of its own, after it imported the dashboard."""
    (config := Path(home) / "superset_config.py").write_text(CONFIG)
    os.environ |= {"SUPERSET_HOME": home, "SUPERSET_CONFIG_PATH": str(config)}
    # Its log has several pages, which say nothing when all is well.
    logging.disable()
    warnings.simplefilter("ignore")
    from flask.cli import ScriptInfo
    from superset.app import create_app
    from superset.cli.main import superset

    write(f"clickhouse+native://default@127.0.0.1:{port}/xapi_analytics", f"{home}/videos.zip")
    app = create_app()
    # In one process: each start of the command takes six seconds.
    for command in (
        "db upgrade",
        f"fab create-admin --username admin --firstname A --lastname B --email a@localhost"
        f" --password {password}",
        "init",
        f"import-dashboards --path {home}/videos.zip --username admin",
    ):
        print(f"superset {command.split(' --')[0]}", flush=True)
        info = ScriptInfo(create_app=lambda: app)
        superset.main(command.split(), obj=info, standalone_mode=False)
    return app


def check(app: Any, password: str) -> str:
    """Ask for the data of every chart, as Superset's API gives them; the dashboard's path."""
    client = app.test_client()
    login = {"username": "admin", "password": password, "provider": "db"}
    token = client.post("/api/v1/security/login", json=login).json["access_token"]

    def ask(path: str) -> dict[str, Any]:
        answer = client.get(f"/api/v1/{path}", headers={"Authorization": f"Bearer {token}"})
        if answer.status_code != 200:
            raise Failed(f"{path}: {answer.text}")
        return dict(answer.json)

    charts = ask("chart/")["result"]
    if len(charts) != sum(map(len, CHARTS)):
        raise Failed(f"{len(charts)} charts were imported")
    for chart in charts:
        (answer,) = ask(f"chart/{chart['id']}/data/")["result"]
        if not answer["data"]:
            raise Failed(f"{chart['slice_name']}: no data")
        print(f"  answers: {chart['slice_name']}")
    return str(ask("dashboard/")["result"][0]["url"])


def main() -> int:
    """Show the dashboard until Ctrl-C, or only check it."""
    if not (ROOT / ".local/demo").exists():
        print("superset: .local/demo does not exist: make run first", file=sys.stderr)
        return 1
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="exit when every chart has answered")
    only_check = parser.parse_args().check
    password = secrets.token_hex(6)
    try:
        with TemporaryDirectory() as home, clickhouse() as port:
            app = prepared(home, password, port)
            path = check(app, password)
            if not only_check:
                from werkzeug.serving import run_simple

                print(f"http://127.0.0.1:{PORT}{path}\nadmin, {password}; Ctrl-C stops it")
                run_simple("127.0.0.1", PORT, app, threaded=True)
    except Failed as error:
        print(f"superset: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
