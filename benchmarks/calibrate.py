"""Measure what single steps take, for the simulation: half a minute, on a quiet machine.

    python -m benchmarks.calibrate [--write]

Batches of several sizes go to the real handler in a warm process, with nginx as S3 and a ClickHouse
that keeps the rows. What they take is split into shares of the invocation, the bundle and the
statement by least squares. Then parts are merged, small ones and large ones. --write changes the
values in coefficients.json, which also has some that are assumed.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from clickhouse_driver import Client

from benchmarks import data, setting, worker
from benchmarks.scenario import FILE, read
from tests import static_s3
from tests.faults.child import processor_seconds
from tests.faults.drill_servers import one_server
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

BUCKET = "bundles"
SHAPES = ((1, 1), (1, 100), (10, 10), (50, 10), (100, 10), (20, 100), (100, 50), (2, 2000))
"""Bundles in a batch, and statements in each."""
ROUNDS = 8
PARTS, LARGE_PART = 100, 5000

Shape = tuple[int, int]


def measured() -> dict[str, float]:
    """The coefficients that can be measured here."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        batches = _written(folder / "objects" / BUCKET)
        with static_s3.serving(folder / "objects") as s3, one_server(folder / "db") as server:
            variables = setting.variables(server.port, s3, BUCKET)
            migrate(Settings.from_env(variables))
            pid = server.process.pid
            with Client("127.0.0.1", server.port, database="xapi_analytics") as client:
                # What merges take is measured apart.
                client.execute("SYSTEM STOP MERGES")
                found = _batches(variables, pid, batches)
                client.execute("SYSTEM START MERGES")
                small, large = (_merge_seconds(client, pid, rows) for rows in (1, LARGE_PART))
    return found | {
        "merge_part_ms": small * 1e3 / PARTS,
        "merge_row_us": (large - small) * 1e6 / (PARTS * LARGE_PART),
    }


def _written(bucket: Path) -> dict[Shape, list[dict[str, Any]]]:
    """The payloads of each shape, one for each round; no bundle is in two of them."""
    lines, numbers = data.statements(), count()
    found: defaultdict[Shape, list[dict[str, Any]]] = defaultdict(list)
    for bundles, each in SHAPES:
        for _ in range(ROUNDS):
            own = [bucket / data.KEY.format(number) for number in islice(numbers, bundles)]
            for path in own:
                data.write_object(path, lines, each)
            found[bundles, each].append(setting.notification(bucket, *own))
    return found


def _batches(
    variables: dict[str, str], server: int, batches: dict[Shape, list[dict[str, Any]]]
) -> dict[str, float]:
    own, waits, theirs = (defaultdict[Shape, list[float]](list) for _ in range(3))
    with worker.running(variables) as ask:
        for number in range(ROUNDS):
            for shape in batches:
                bundles, each = shape
                before = processor_seconds(server)
                took = setting.loading(ask, batches[shape][number], bundles * each, bundles)()
                time.sleep(0.05)  # What the server still does for it counts.
                if number:
                    theirs[shape].append(processor_seconds(server) - before)
                    own[shape].append(took["cpu"])
                    waits[shape].append(max(0.0, took["wall"] - took["cpu"]))
    sizes = [(1, bundles, bundles * each) for bundles, each in batches]
    rows = [(1, size[2]) for size in sizes]
    cpu = _least_squares(sizes, [statistics.median(own[s]) for s in batches])
    # The least, since waits grow with whatever else the machine does.
    wait = _least_squares(rows, [min(waits[s]) for s in batches])
    rest = _least_squares(rows, [statistics.mean(theirs[s]) for s in batches])
    return {
        "invocation_cpu_ms": cpu[0] * 1e3,
        "object_cpu_ms": cpu[1] * 1e3,
        "statement_cpu_us": cpu[2] * 1e6,
        "insert_cpu_ms": cpu[0] * 1e3 / 2,
        "clickhouse_wait_ms": max(wait[0] * 1e3, 1.0),
        "row_wait_us": max(wait[1] * 1e6, 0.0),
        "server_insert_ms": rest[0] * 1e3,
        "server_row_us": rest[1] * 1e6,
    }


def _least_squares(rows: Sequence[Sequence[int]], wanted: Sequence[float]) -> list[float]:
    """The factors of the columns that fit best; each row is weighted by its own size."""
    weighed = np.array(rows) / np.array(wanted)[:, None]
    return [float(factor) for factor in np.linalg.lstsq(weighed, np.ones(len(wanted)))[0]]


def _merge_seconds(client: Client, server: int, rows: int) -> float:
    """What merging PARTS parts of so many rows takes."""
    client.execute("CREATE TABLE merging AS video_events")
    client.execute("SYSTEM STOP MERGES merging")
    [(have,)] = client.execute("SELECT count() FROM video_events")
    for number in range(PARTS):
        start = number * 37 % max(1, have - rows)
        client.execute(
            "INSERT INTO merging SELECT * REPLACE(toString(generateUUIDv4()) AS event_id)"
            f" FROM video_events LIMIT {rows} OFFSET {start}"
        )
    client.execute("SYSTEM START MERGES merging")
    before = processor_seconds(server)
    client.execute("OPTIMIZE TABLE merging FINAL")
    took = processor_seconds(server) - before
    client.execute("DROP TABLE merging SYNC")
    return took


def main() -> None:
    """Measure, print, and write if asked."""
    found = {name: float(f"{value:.3g}") for name, value in measured().items()}
    print(json.dumps(found, indent=2))
    if "--write" in sys.argv:
        known = read()
        for name, value in found.items():
            known[name]["value"] = value
        FILE.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
