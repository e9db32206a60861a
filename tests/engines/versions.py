"""Which engines are tried, where they come from, and how they are installed and started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv" / "engines"
"""Where wheels are installed, each in a folder of its own, and kept."""


class Engine(NamedTuple):
    """An engine, as a wheel has it; the project's own if `wheel` is ''."""

    name: str
    wheel: str
    lts: bool = False
    ci: bool = False
    """Whether each change is tried on it."""
    server: bool = True
    """Whether one process can answer several sessions; else there is a process for each query."""
    old_analyzer: bool = False
    without: tuple[str, ...] = ()
    """Steps of the scenario that the wheel cannot do, although a server can."""

    @property
    def version(self) -> str:
        """ClickHouse's version: year and month."""
        return self.name.partition("-")[0]

    @property
    def folder(self) -> Path:
        """Where its wheel is installed."""
        return FOLDER / self.wheel

    @property
    def options(self) -> list[str]:
        """Of tests/engines/serve.py."""
        return [
            *(["--wheel", str(self.folder)] if self.wheel else []),
            *([] if self.server else ["--process-for-each"]),
            *(["--set", "allow_experimental_analyzer=0"] if self.old_analyzer else []),
        ]


ENGINES = (
    # It has no system.parts.
    Engine("23.10", "chdb==1.4.1", ci=True, server=False, without=("status", "drop-months")),
    Engine("24.5", "chdb==2.0.4", server=False),
    Engine("24.8", "chdb==2.1.1", lts=True, server=False),
    Engine("24.8-old-analyzer", "chdb==2.1.1", lts=True, ci=True, server=False, old_analyzer=True),
    Engine("25.5", "chdb==3.4.1"),
    Engine("25.8", "chdb==3.7.2", lts=True, ci=True),
    Engine("26.1", "chdb-core==26.1.0"),
    Engine("26.3", "chdb-core==26.3.0", lts=True, ci=True),
    Engine("26.5", "chdb-core==26.5.0"),
    Engine("26.7", "chdb-core==26.7.0"),
    Engine("26.9", "", ci=True),
)
"""From the oldest to the newest, which the others are compared with. ClickHouse's releases of March
and August have long-term support."""

NEWEST = ENGINES[-1]


def install(engine: Engine) -> None:
    """Install its wheel, unless it is there."""
    done = engine.folder / "installed"
    if not engine.wheel or done.exists():
        return
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", engine.folder, engine.wheel], check=True)
    done.touch()


@contextmanager
def serving(engine: Engine, data: Path) -> Iterator[int]:
    """The engine behind the native protocol, with its data in a folder; gives its port."""
    command = [sys.executable, "-m", "tests.engines.serve", "--data", str(data), "--port", "0"]
    server = subprocess.Popen(
        [*command, *engine.options],
        cwd=ROOT,
        # Old wheels wait for the rows of an insert from a file there too.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert server.stdout
    try:
        greeting = server.stdout.readline()
        assert f"ClickHouse {engine.version}." in greeting, (engine.name, greeting)
        yield int(greeting.split("127.0.0.1:")[1].split(",")[0])
    finally:
        server.kill()
        server.communicate()
