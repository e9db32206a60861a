"""What the benchmarks run against: objects behind nginx, a slow network, and a ClickHouse that
drops rows; and the processes that are measured.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import data, static_s3, worker
from local import process
from local.aws import environment, loader_environment, without_real_services
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

FOR_THE_PROCESS = {"MALLOC_ARENA_MAX": "2"}
"""What the stack sets for the C library and not for the loader."""

LATENCY_MS = 30
"""What a GET from S3 waits in the slow network."""

WARM, LARGE, OTHER, MEMORY = "warm", "large", "other", "memory"
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sizes:
    """How much is measured: numbers of objects and statements, MB, rounds."""

    objects: dict[int, int]  # by statements in each
    slow_objects: int
    statements: int
    megabytes: tuple[int, ...]
    rounds: int
    cold_starts: int


SMALL = Sizes({10: 400}, 160, 20_000, (10, 100), 3, 5)
FULL = Sizes({10: 2000, 100: 2000}, 2000, 100_000, (10, 100, 1000), 5, 7)


@dataclass(frozen=True)
class Setting:
    """The services' addresses and variables, and the folder of the objects."""

    sizes: Sizes
    folder: Path
    port: int
    variables: dict[str, str]
    slow: dict[str, str]

    def path(self, bucket: str) -> Path:
        """The only object of a bucket, as a file."""
        return self.folder / bucket / data.KEY.format("000000")

    @staticmethod
    def statements(path: Path) -> int:
        """How many statements a file has."""
        with path.open("rb") as lines:
            return sum(1 for _ in lines)

    def url(self, bucket: str) -> str:
        """All objects of a bucket, as ClickHouse's s3() names them."""
        return f"http://127.0.0.1:{self.port}/{bucket}/section/*/video/*.jsonl"


@contextmanager
def prepared(sizes: Sizes) -> Iterator[Setting]:
    """Everything started, with the objects written; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        objects = folder / "objects"
        _write(objects, sizes)
        port = stack.enter_context(static_s3.serving(objects))
        slow_port = stack.enter_context(_slow_network(port))
        buckets = ",".join(path.name for path in objects.iterdir())
        with process.clickhouse(folder / "clickhouse") as clickhouse:
            migrate(Settings.from_env(loader_environment(clickhouse, {}, WARM)))
        clickhouse = stack.enter_context(process.clickhouse(folder / "clickhouse", "--drop-rows"))
        variables = {
            **without_real_services(os.environ),
            **loader_environment(clickhouse, environment(port), WARM),
            **FOR_THE_PROCESS,
            "S3_XAPI_OTHER_BUCKETS": buckets,
        }
        slow = variables | environment(slow_port)
        yield Setting(sizes, objects, port, variables, slow)


def _write(folder: Path, sizes: Sizes) -> None:
    data.write_bundles(folder / WARM, 1, 1)
    for each, objects in sizes.objects.items():
        data.write_bundles(folder / f"each{each}", objects, each)
    data.write_bundles(folder / "slow", sizes.slow_objects, 10)
    data.write_bundles(folder / "serial", max(sizes.slow_objects // 40, 30), 10)
    key = data.KEY.format("000000")
    data.write_object(folder / LARGE / key, data.statements(), most=sizes.statements)
    other = data.not_video(data.statements())
    data.write_object(folder / OTHER / key, other, most=sizes.statements)
    for megabytes in sizes.megabytes:
        path = folder / MEMORY / data.KEY.format(f"{megabytes:06}")
        data.write_object(path, data.statements(), megabytes=megabytes)


@contextmanager
def _slow_network(port: int) -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.slow_network", str(port), str(LATENCY_MS)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as proxy:
        assert proxy.stdin
        assert proxy.stdout
        found = re.search(r":(\d+)$", proxy.stdout.readline())
        if not found:
            raise RuntimeError("the slow network did not start: see its message above")
        yield int(found[1])
        proxy.stdin.close()


@contextmanager
def loader(variables: dict[str, str]) -> Iterator[worker.Ask]:
    """A process that has loaded a bundle already, as a warm Lambda has; gives what sends it
    payloads.
    """
    with worker.running(variables) as ask:
        payload = one_object(WARM)
        ask("load", payload=payload, statements=1, objects=1)
        yield ask


def one_object(bucket: str, name: str = "000000") -> dict[str, Any]:
    """The payload that loads one object of a bucket."""
    return {"bucket": bucket, "key": data.KEY.format(name), "force_reprocess": True}


def whole_bucket(bucket: str) -> dict[str, Any]:
    """The payload that loads all objects of a bucket."""
    return {"mode": "bulk", "s3_bucket": bucket, "force_reprocess": True}


def loading(
    ask: worker.Ask, payload: dict[str, Any], statements: int, objects: int = 1
) -> partial[worker.Times]:
    """A trial that sends a payload to a loader."""
    return partial(ask, "load", payload=payload, statements=statements, objects=objects)


def has_tool(tool: str) -> bool:
    """Whether a tool that others wrote has its environment: make bench BENCH=--others makes it."""
    return _python_of(tool).exists()


def other_tool(tool: str, *arguments: str) -> worker.Times:
    """What the tool takes; see other_tools.py."""
    command = [str(_python_of(tool)), str(ROOT / "benchmarks/other_tools.py"), tool, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _python_of(tool: str) -> Path:
    return ROOT / ".venv/bench" / tool / "bin/python"
