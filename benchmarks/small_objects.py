"""Objects per second in bulk mode, for many small bundles fetched one at a time or ahead.

    python -m benchmarks.small_objects [--objects 1000]

The local S3 answers within a few milliseconds; --latency adds the latency of a real one to every
GET, in milliseconds. The loader runs in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from itertools import islice

from local import process
from local.bundles import generate

BUCKET = "bundles"


def load(latency: float) -> None:
    """Load the whole bucket in this process, and print the time it took."""
    from xapi_etl_processor.config import Settings
    from xapi_etl_processor.lambda_function import handler
    from xapi_etl_processor.run import connections

    events = connections(Settings.from_env(os.environ)).s3.meta.events
    events.register("before-call.s3.GetObject", lambda **_: time.sleep(latency))
    started, used = time.perf_counter(), time.process_time()
    body = json.loads(handler({"mode": "bulk", "force_reprocess": True})["body"])
    times = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - used}
    print(json.dumps(times | {"files": body["files_processed"]}))


def main() -> None:
    """Generate bundles, and load them with each setting in turn."""
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
        print(f"{options.objects:,} objects, {options.latency:g} ms added to each GET")
        for _ in range(2):
            for concurrency in ("1", "16"):
                _show(concurrency, options)


def _show(concurrency: str, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "benchmarks.small_objects", "--load"]
    finished = subprocess.run(
        [*command, "--latency", str(options.latency)],
        env={**os.environ, "S3_CONCURRENCY": concurrency},
        check=True,
        stdout=subprocess.PIPE,
    )
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["files"] == options.objects
    rate = options.objects / result["seconds"]
    print(f"S3_CONCURRENCY={concurrency:3} {rate:6.0f} objects/s  {result['cpu']:.1f} s of CPU")


if __name__ == "__main__":
    main()
