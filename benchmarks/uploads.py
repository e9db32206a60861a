"""From S3's notification to the row that a reader sees: bundles of ten statements, one at a time,
with the services at a distance.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clickhouse_driver import Client

from benchmarks import data, setting, worker
from benchmarks.rounds import Times
from local import process
from tests import static_s3
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

CLICKHOUSE_MS, S3_MS = (1, 30, 80), 20
"""Round trips."""

BUCKET, EACH = "uploads", 10
POLL_SECONDS = 0.005


def measured(warm: int, cold: int) -> dict[str, list[Times]]:
    """So many uploads to a warm function, and to new processes, at each distance."""
    found: dict[str, list[Times]] = {}
    with TemporaryDirectory() as name:
        bucket = Path(name) / "objects" / BUCKET
        data.write_bundles(bucket, (warm + 1 + cold) * len(CLICKHOUSE_MS), EACH)
        payloads = (setting.notification(bucket, path) for path in bucket.rglob("*.jsonl"))
        with (
            static_s3.serving(bucket.parent) as s3_port,
            process.clickhouse(Path(name) / "clickhouse") as port,
            tcp_proxy(s3_port) as s3,
            tcp_proxy(port) as clickhouse,
            Client("127.0.0.1", port) as reader,
        ):
            variables = setting.variables(clickhouse.port, s3.port, BUCKET)
            migrate(Settings.from_env(variables))
            s3.delay = S3_MS / 1000

            def upload(function: AbstractContextManager[worker.Ask]) -> Times:
                return _upload(function, next(payloads), clickhouse, s3, reader)

            for distance in CLICKHOUSE_MS:
                away = f"ClickHouse {distance} ms away"
                print(f"measuring uploads, {away}", file=sys.stderr)
                clickhouse.delay = distance / 1000
                with worker.running(variables) as ask:
                    upload(nullcontext(ask))
                    found[f"warm, {away}"] = [upload(nullcontext(ask)) for _ in range(warm)]
                new = [upload(worker.running(variables)) for _ in range(cold)]
                found[f"a new process, {away}"] = new
    return found


def _upload(
    function: AbstractContextManager[worker.Ask],
    payload: dict[str, Any],
    clickhouse: TcpProxy,
    s3: TcpProxy,
    reader: Client,
) -> Times:
    """How long it takes until the reader sees the rows and until the function answers, and how
    much of that, at least, it waits for round trips.
    """

    def until(name: str, unneeded: float = 0) -> dict[str, float]:
        trips = clickhouse.turn + clickhouse.connections - unneeded
        least = trips * clickhouse.delay + (s3.turn + s3.connections) * s3.delay
        return {name: time.perf_counter() - started, f"{name}, least": least}

    def answered() -> dict[str, float]:
        with function as ask:
            setting.loading(ask, payload, EACH)()
            return until("answer")

    def rows() -> Any:
        return reader.execute("SELECT count() FROM xapi_analytics.video_events")

    before = rows()
    for proxy in (clickhouse, s3):
        proxy.turn = proxy.connections = 0
    started = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        answer, ended = pool.submit(answered), False
        while rows() == before:
            if ended:
                raise RuntimeError("no reader sees the rows") from answer.exception()
            ended = answer.done()
            time.sleep(POLL_SECONDS)
        # The rows are there when the last request has arrived, before its answer has.
        seen = until("row", unneeded=0.5)
        return seen | answer.result()
