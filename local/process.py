"""The local ClickHouse and S3 as processes of their own, where memory or speed is measured."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3

from local.aws import environment, loader_environment
from xapi_etl_processor.config import Settings
from xapi_etl_processor.storage.migrations import migrate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PORT = re.compile(r"127\.0\.0\.1:(\d+)")


@contextmanager
def clickhouse(data: Path) -> Iterator[int]:
    """The local ClickHouse server on a free port; gives the port."""
    with _running("local.clickhouse_server", "--port", "0", "--data", str(data)) as port:
        yield port


@contextmanager
def s3() -> Iterator[dict[str, str]]:
    """S3 on a free port; gives the environment to use it with."""
    with _running("local.aws", "0") as port:
        yield environment(port)


@contextmanager
def cloud(bucket: str) -> Iterator[S3Client]:
    """Both, told to this process's environment, with the tables migrated and the bucket made."""
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
def _running(module: str, *arguments: str) -> Iterator[int]:
    """A module that says in its first line on which port it serves; ended with the block."""
    process = subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout  # noqa: S101  # for mypy: it is a pipe
        line = process.stdout.readline()
        found = _PORT.search(line)
        if not found:
            raise RuntimeError(f"{module} did not start: {line!r}")
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(30)
        if process.stdout:
            process.stdout.close()
