"""The local ClickHouse and S3 as processes of their own: `make local`, tests, benchmarks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from local.aws import environment, loader_environment, without_real_services
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ROOT = Path(__file__).parents[1]
_PORT = re.compile(r"127\.0\.0\.1:(\d+)")
_START_SECONDS = 60


class ServiceFailed(RuntimeError):
    """A service did not start; standard error has its own message."""


@contextmanager
def clickhouse(data: Path, *options: str) -> Iterator[int]:
    """The local ClickHouse server on a free port; gives the port. Raises ServiceFailed."""
    command = ("local.clickhouse_server", "--port", "0", "--data", str(data.absolute()), *options)
    with running(*command) as (_, port):
        yield port


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """S3 on a free port; gives the environment to use it with. Raises ServiceFailed."""
    with running("local.aws", "0") as (_, port):
        yield environment(port)


@contextmanager
def cloud(bucket: str) -> Iterator[S3Client]:
    """Both services, with the tables migrated, the bucket made and this process's environment set.

    ClickHouse's data is deleted afterwards.
    """
    # Not all who import this module need boto3, which takes 0.2 s.
    import boto3

    with (
        tempfile.TemporaryDirectory() as folder,
        clickhouse(Path(folder)) as port,
        s3() as variables,
    ):
        os.environ.update(loader_environment(port, variables, bucket))
        migrate(Settings.from_env(os.environ))
        client = boto3.client("s3")
        client.create_bucket(Bucket=bucket)
        yield client


@contextmanager
def running(module: str, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a module that prints its port in its first line; stop it when the block ends. Gives the
    id of the process, and the port. Raises ServiceFailed.
    """
    process = subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-m", module, "--stop-with-parent", *arguments],
        cwd=_ROOT,
        env=without_real_services(os.environ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C in a terminal goes to the command that uses the service, not to the service.
        start_new_session=True,
    )
    assert process.stdin  # noqa: S101  # for mypy: both are pipes
    assert process.stdout  # noqa: S101
    too_late = threading.Timer(_START_SECONDS, process.kill)
    too_late.daemon = True
    try:
        too_late.start()
        line = process.stdout.readline()
        found = _PORT.search(line)
        if not found:
            raise ServiceFailed(f"{module} did not start")
        too_late.cancel()
        yield process.pid, int(found[1])
    finally:
        too_late.cancel()
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdin.close()
        process.stdout.close()
