"""From S3's notification to the row that a reader sees: bundles of ten statements, one at a time,
with the services at a distance.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from clickhouse_driver import Client

from benchmarks import data, setting, worker
from local import process
from local.aws import environment, loader_environment, without_real_services
from tests import static_s3
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

CLICKHOUSE_MS, S3_MS = (1, 30, 80), 20
"""Round trips."""

BUCKET, EACH = "uploads", 10
POLL_SECONDS = 0.005
_COUNT = "SELECT count() FROM xapi_analytics.video_events"


class Moment(NamedTuple):
    """When something was so, and how often one side had waited for the other until then: for an
    answer or for a connection.
    """

    seconds: float
    clickhouse: float
    s3: float


class Upload(NamedTuple):
    """When a reader saw the rows and when the handler had returned; its seconds of processor."""

    until: tuple[Moment, Moment]
    processor: float


class Series(NamedTuple):
    """Uploads alike; `distance` is the round trip to ClickHouse in ms."""

    function: str
    distance: int
    uploads: list[Upload]


class Services(NamedTuple):
    """What the function reaches through the proxies, and a reader without them."""

    clickhouse: TcpProxy
    s3: TcpProxy
    reader: Client
    bucket: Path
    variables: dict[str, str]


def measured(warm: int, cold: int) -> list[Series]:
    """So many uploads to a warm function, and to new processes, at each distance."""
    found = []
    each = warm + 1 + cold
    with _services(each * len(CLICKHOUSE_MS)) as services:
        for number, distance in enumerate(CLICKHOUSE_MS):
            print(f"measuring uploads, ClickHouse {distance} ms away", file=sys.stderr)
            services.clickhouse.delay = distance / 1000
            bundles = iter(range(number * each, (number + 1) * each))
            with worker.running(services.variables) as ask:
                _first, *others = (_upload(services, next(bundles), ask) for _ in range(warm + 1))
            found.append(Series("warm", distance, others))
            news = [_upload(services, next(bundles), None) for _ in range(cold)]
            found.append(Series("a new process", distance, news))
    return found


@contextmanager
def _services(bundles: int) -> Iterator[Services]:
    with TemporaryDirectory() as name:
        bucket = Path(name) / "objects" / BUCKET
        data.write_bundles(bucket, bundles, EACH)
        with (
            static_s3.serving(bucket.parent) as s3_port,
            process.clickhouse(Path(name) / "clickhouse") as port,
            tcp_proxy(s3_port) as s3,
            tcp_proxy(port) as clickhouse,
            Client("127.0.0.1", port) as reader,
        ):
            migrate(Settings.from_env(loader_environment(port, {}, BUCKET)))
            s3.delay = S3_MS / 1000
            variables = {
                **without_real_services(os.environ),
                **loader_environment(clickhouse.port, environment(s3.port), BUCKET),
                **setting.FOR_THE_PROCESS,
            }
            yield Services(clickhouse, s3, reader, bucket, variables)


def _upload(services: Services, number: int, ask: worker.Ask | None) -> Upload:
    """Load a bundle in a worker, or in a new one, while a reader looks for its rows."""
    payload = setting.notification(services.bucket, number)
    count = partial(services.reader.execute, _COUNT)
    before, proxies = count(), (services.clickhouse, services.s3)
    for proxy in proxies:
        proxy.turn = proxy.connections = 0
    started = time.perf_counter()

    def moment() -> Moment:
        return Moment(
            time.perf_counter() - started, *(proxy.turn + proxy.connections for proxy in proxies)
        )

    def handled() -> tuple[Moment, float]:
        with nullcontext(ask) if ask else worker.running(services.variables) as known:
            took = setting.loading(known, payload, EACH)()
            return moment(), took["cpu"]

    with ThreadPoolExecutor(1) as pool:
        handling, returned = pool.submit(handled), False
        while count() == before:
            if returned:
                raise RuntimeError("the handler has returned, and no reader sees its rows")
            returned = handling.done()
            time.sleep(POLL_SECONDS)
        seen = moment()
        ended, processor = handling.result()
        return Upload((seen, ended), processor)
