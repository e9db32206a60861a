"""Many small bundles: objects a second in bulk mode, with one fetch at a time and with many.

    python -m benchmarks.small_objects [--objects 1000]

The local S3 answers within a few milliseconds; --latency adds what a real one takes to answer, in
milliseconds, to every GET. The loader's client is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice
from typing import Any

from local import process
from local.bundles import generate

BUCKET = "bundles"


def load(latency: float) -> None:
    """In a process of its own: load everything there is, and print what it took."""
    from xapi_etl_processor.lambda_function import handler
    from xapi_etl_processor.sources import s3

    fetch = s3._get

    def slow(*arguments: Any) -> Any:
        time.sleep(latency)
        return fetch(*arguments)

    s3._get = slow  # type: ignore[assignment]  # the same, later
    started, used = time.perf_counter(), time.process_time()
    body = json.loads(handler({"mode": "bulk", "force_reprocess": True})["body"])
    took = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - used}
    print(json.dumps(took | {"files": body["files_processed"]}))


def main() -> None:
    """Generate, load with both settings in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=20, help="milliseconds (%(default)s)")
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.latency / 1000)
        return
    with process.cloud(BUCKET) as s3:
        for bundle in islice(generate(days=1000), options.objects):
            s3.put_object(Bucket=BUCKET, Key=bundle.key, Body=bundle.body)
        print(f"{options.objects:,} objects, {options.latency:g} ms to each first byte")
        for _ in range(2):
            for concurrency in ("1", "16"):
                _show(concurrency, options)


def _show(concurrency: str, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "benchmarks.small_objects", "--load"]
    done = subprocess.run(
        [*command, "--latency", str(options.latency)],
        env={**os.environ, "S3_CONCURRENCY": concurrency},
        check=True,
        stdout=subprocess.PIPE,
    )
    took = json.loads(done.stdout.splitlines()[-1])
    assert took["files"] == options.objects
    rate = options.objects / took["seconds"]
    print(f"S3_CONCURRENCY={concurrency:3} {rate:6.0f} objects/s  {took['cpu']:.1f} s of CPU")


if __name__ == "__main__":
    main()
