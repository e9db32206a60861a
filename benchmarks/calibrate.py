"""Measure what single steps take, for the simulation.

Batches of several sizes go to the real handler in a warm process, with nginx as S3 and a ClickHouse
that keeps the rows. What they take is split into shares of the invocation, the bundle and the
statement by least squares. Then parts are merged, small ones and large ones.

example: python -m benchmarks.calibrate --write   # about a minute; on a quiet machine
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from clickhouse_driver import Client
from rich.console import Console
from rich.table import Table

from benchmarks import coefficients, data, setting, static_s3, worker
from benchmarks.processor_time import newest_child, processor_seconds
from local import process
from local.aws import environment, loader_environment
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations.migrate import migrate

BUCKET = "bundles"
SHAPES = ((1, 1), (1, 100), (10, 10), (50, 10), (100, 10), (20, 100), (100, 50), (2, 2000))
"""Bundles in a batch, and statements in each."""
ROUNDS = 8
PARTS, LARGE_PART = 100, 5000

UNITS = {
    "invocation_cpu_ms": "ms of processor per invocation",
    "object_cpu_ms": "ms of processor per bundle",
    "statement_cpu_us": "µs of processor per statement",
    "insert_cpu_ms": "ms of processor per further insert",
    "request_ms": "ms that a request to S3 waits",
    "clickhouse_wait_ms": "ms that an invocation waits for ClickHouse",
    "row_wait_us": "µs that it waits per row",
    "server_insert_ms": "ms of ClickHouse's processor per insert, with ledger row and queries",
    "server_row_us": "µs of ClickHouse's processor per row",
    "merge_part_ms": "ms of ClickHouse's processor to merge a part",
    "merge_row_us": "µs of ClickHouse's processor to merge a row once",
    "receive_ms": "ms to receive ten messages",
    "outage_ms": "ms of an invocation while ClickHouse refuses connections",
}
ASSUMED = {
    "request_ms": (30.0, "assumed"),
    "receive_ms": (20.0, "assumed"),
    "outage_ms": (5250.0, "pauses between four attempts"),
}


def measured() -> dict[str, float]:
    """The coefficients that can be measured here. Raises NginxFailed."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "objects" / BUCKET).mkdir(parents=True)
        batches = _written(folder / "objects" / BUCKET)
        with static_s3.serving(folder / "objects") as s3, process.clickhouse(folder / "db") as port:
            variables = loader_environment(port, environment(s3), BUCKET) | setting.FOR_THE_PROCESS
            migrate(Settings.from_env(variables))
            server = newest_child()
            with Client("127.0.0.1", port) as client:
                # What merges take is measured apart.
                client.execute("SYSTEM STOP MERGES")
                found = _batches(variables | {"PATH": os.environ["PATH"]}, server, batches)
                client.execute("SYSTEM START MERGES")
            return found | _merges(port, server)


def _written(bucket: Path) -> dict[tuple[int, int], list[dict[str, object]]]:
    """The payloads of each shape, one for each round; no bundle is in two of them."""
    lines = data.statements()
    number = 0
    found: dict[tuple[int, int], list[dict[str, object]]] = {}
    for bundles, each in SHAPES:
        for _ in range(ROUNDS):
            records = []
            for _ in range(bundles):
                key = data.KEY.format(f"{number:06}")
                number += 1
                path = bucket / key
                data.write_object(path, lines, most=each)
                described = {
                    "key": key,
                    "size": path.stat().st_size,
                    "eTag": static_s3.etag(path),
                }
                records.append({"s3": {"bucket": {"name": BUCKET}, "object": described}})
            found.setdefault((bundles, each), []).append({"Records": records})
    return found


def _batches(
    variables: dict[str, str],
    server: int,
    batches: dict[tuple[int, int], list[dict[str, object]]],
) -> dict[str, float]:
    shapes = list(batches)
    own: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    waits: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    theirs = dict.fromkeys(shapes, 0.0)
    with worker.running(variables) as ask:
        for number in range(ROUNDS):
            for shape in shapes:
                payload = batches[shape][number]
                bundles, each = shape
                before = processor_seconds(server)
                took = ask("load", payload=payload, statements=bundles * each, objects=bundles)
                time.sleep(0.05)  # What the server still does for it counts.
                if number:
                    theirs[shape] += processor_seconds(server) - before
                    own[shape].append(took["cpu"])
                    waits[shape].append(max(0.0, took["wall"] - took["cpu"]))
    sizes = [(1.0, float(b), float(b * each)) for b, each in shapes]
    cpu = _least_squares(sizes, [statistics.median(own[s]) for s in shapes])
    wait = _least_squares(
        # The least, since waits grow with whatever else the machine does.
        [(1.0, size[2]) for size in sizes],
        [min(waits[s]) for s in shapes],
    )
    rest = _least_squares(
        [(1.0, size[2]) for size in sizes], [theirs[s] / (ROUNDS - 1) for s in shapes]
    )
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


def _least_squares(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """The factors of the columns that fit best; each row is weighted by its own size."""
    weighed = [[x / y for x in row] for row, y in zip(rows, wanted, strict=True)]
    size = len(weighed[0])
    left = [[sum(row[i] * row[j] for row in weighed) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in weighed) for i in range(size)]
    for i in range(size):
        for j in range(i + 1, size):
            factor = left[j][i] / left[i][i]
            left[j] = [a - factor * b for a, b in zip(left[j], left[i], strict=True)]
            right[j] -= factor * right[i]
    found = [0.0] * size
    for i in reversed(range(size)):
        known = sum(left[i][j] * found[j] for j in range(i + 1, size))
        found[i] = (right[i] - known) / left[i][i]
    return found


def _merges(port: int, server: int) -> dict[str, float]:
    """What merging takes: many parts of one row each, and as many of thousands of rows."""
    with Client("127.0.0.1", port, database="xapi_analytics") as client:
        small, large = (_merge_seconds(client, server, rows) for rows in (1, LARGE_PART))
    return {
        "merge_part_ms": small * 1e3 / PARTS,
        "merge_row_us": (large - small) * 1e6 / (PARTS * LARGE_PART),
    }


def _merge_seconds(client: Client, server: int, rows: int) -> float:
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


def main() -> int:
    """Measure, print, and write if asked."""
    about, _, example = __doc__.rpartition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibrate",
        description=about,
        epilog=example,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write {coefficients.FILE.name}; on a quiet machine"
    )
    options = parser.parse_args()
    try:
        found = measured()
    except static_s3.NginxFailed as error:
        print(error, file=sys.stderr)
        return 1
    if options.write:
        coefficients.write(found, UNITS, "calibrate")
        for name, (value, how) in ASSUMED.items():
            coefficients.write({name: value}, UNITS, how)
    shown = Table("name", "value", "unit")
    for name, value in found.items():
        shown.add_row(name, f"{value:.3g}", UNITS[name])
    Console().print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
