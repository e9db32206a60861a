"""What the benchmarks run against: objects behind nginx, a slow network, and a ClickHouse that
drops rows; and the loaders that are measured.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import data, worker
from local import process
from local.aws import environment, loader_environment, without_real_services
from tests import static_s3
from tests.faults.tcp_proxy import tcp_proxy
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

LATENCY_MS = 30
"""What a GET from S3 waits in the slow network, and connecting to it."""

WARM, LARGE, OTHER, MEMORY = "warm", "large", "other", "memory"
STATEMENTS_A_MB = 893


@dataclass(frozen=True)
class Sizes:
    """How much is measured: numbers of objects and statements, MB, rounds."""

    objects: dict[int, int]  # by statements in each
    slow_objects: int
    statements: int
    megabytes: tuple[int, ...]
    rounds: int
    cold_starts: int
    uploads: tuple[int, int]  # to a warm function, and to new ones


SMALL = Sizes({10: 400}, 160, 20_000, (10, 100), 3, 5, (5, 1))
FULL = Sizes({10: 2000, 100: 500}, 2000, 100_000, (10, 100, 1000), 5, 7, (200, 20))


@dataclass(frozen=True)
class Setting:
    """The services' addresses and variables, and the folder of the objects."""

    sizes: Sizes
    folder: Path
    variables: dict[str, str]
    slow: dict[str, str]


@contextmanager
def prepared(sizes: Sizes) -> Iterator[Setting]:
    """Everything started, with the objects written; all of it is gone afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        objects = folder / "objects"
        _write(objects, sizes)
        port = stack.enter_context(static_s3.serving(objects))
        proxy = stack.enter_context(tcp_proxy(port))
        proxy.delay = LATENCY_MS / 1000
        with process.clickhouse(folder / "clickhouse") as clickhouse:
            migrate(Settings.from_env(variables(clickhouse, port, WARM)))
        clickhouse = stack.enter_context(process.clickhouse(folder / "clickhouse", "--drop-rows"))
        others = {"S3_XAPI_OTHER_BUCKETS": ",".join(path.name for path in objects.iterdir())}
        near, far = (variables(clickhouse, at, WARM) | others for at in (port, proxy.port))
        yield Setting(sizes, objects, near, far)


def variables(clickhouse: int, s3: int, bucket: str) -> dict[str, str]:
    """A loader's environment, for services on these ports."""
    return {
        **without_real_services(os.environ),
        **loader_environment(clickhouse, environment(s3), bucket),
        # What the stack sets for the C library.
        "MALLOC_ARENA_MAX": "2",
    }


def _write(folder: Path, sizes: Sizes) -> None:
    data.write_bundles(folder / WARM, 1, 1)
    for each, objects in sizes.objects.items():
        data.write_bundles(folder / f"each{each}", objects, each)
    data.write_bundles(folder / "slow", sizes.slow_objects, 10)
    data.write_bundles(folder / LARGE, 1, sizes.statements)
    other = data.not_video(data.statements())
    data.write_object(folder / OTHER / data.KEY.format(0), other, sizes.statements)
    for megabytes in sizes.megabytes:
        path = folder / MEMORY / data.KEY.format(megabytes)
        data.write_object(path, data.statements(), megabytes * STATEMENTS_A_MB)


@contextmanager
def loader(variables: dict[str, str]) -> Iterator[worker.Ask]:
    """A process that has loaded a bundle already, as a warm Lambda has; gives what sends it
    payloads.
    """
    with worker.running(variables) as ask:
        loading(ask, one_object(WARM), 1)()
        yield ask


def one_object(bucket: str, number: int = 0) -> dict[str, Any]:
    """The payload that loads one object of a bucket."""
    return {"bucket": bucket, "key": data.KEY.format(number), "force_reprocess": True}


def notification(bucket: Path, *bundles: Path) -> dict[str, Any]:
    """What S3 sends when these bundles have been uploaded."""
    records = []
    for path in bundles:
        key = path.relative_to(bucket).as_posix()
        described = {"key": key, "size": path.stat().st_size, "eTag": static_s3.etag(path)}
        records.append({"s3": {"bucket": {"name": bucket.name}, "object": described}})
    return {"Records": records}


def whole_bucket(bucket: str) -> dict[str, Any]:
    """The payload that loads all objects of a bucket."""
    return {"mode": "bulk", "s3_bucket": bucket, "force_reprocess": True}


def every_object(variables: dict[str, str], bucket: str) -> str:
    """All objects of a bucket, as ClickHouse's s3() names them."""
    return f"{variables['AWS_ENDPOINT_URL']}/{bucket}/section/*/video/*.jsonl"


def loading(
    ask: worker.Ask, payload: dict[str, Any], statements: int, objects: int = 1
) -> partial[dict[str, float]]:
    """A trial that sends a payload to a loader."""
    return partial(ask, "load", payload=payload, statements=statements, objects=objects)
