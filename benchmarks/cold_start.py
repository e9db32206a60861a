"""How long a cold start with its first event takes, compared to a baseline that nobody can avoid.

python -m benchmarks.cold_start [ROUNDS]

The baseline imports boto3, creates an S3 client and imports clickhouse-driver, from the same
folders. The package also handles an event: it reads an object from S3 (moto) and writes to
ClickHouse (chDB), which run in separate processes.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from deployment.package import ARCHITECTURES, build
from local.lambda_runtime import LambdaRuntime, install_runtime, interpreters, unpack
from local.process import cloud

BUCKET = "cold-start-bundles"
MAX_RATIO = 1.25
_BASELINE = """
import sys
sys.path[:0] = sys.argv[1:]
import boto3
boto3.client("s3")
import clickhouse_driver
"""
_STATEMENT = {
    "actor": {"account": {"name": "viewer"}},
    "verb": {"id": "https://w3id.org/xapi/video/verbs/played"},
    "object": {"id": "https://example.org/video/1"},
    "timestamp": "2024-01-01T12:00:00Z",
}


def main() -> int:
    """Measure each Python on this machine, alternating the two; 1 if a ratio is above MAX_RATIO."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    machine = platform.machine()
    arch = next(name for name, wheels in ARCHITECTURES.items() if wheels == machine)
    too_slow = False
    with tempfile.TemporaryDirectory() as directory, cloud(BUCKET) as s3:
        variables = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("AWS_", "CLICKHOUSE_", "S3_XAPI_", "ENVIRONMENT"))
        }
        for python, interpreter in interpreters().items():
            folder = Path(directory) / python
            folder.mkdir()
            build(folder / "package.zip", python, arch)
            unpack(folder / "package.zip", folder / "task")
            install_runtime(folder / "runtime", python)
            # In Lambda, the runtime's own code is compiled to bytecode; a package's is not.
            subprocess.run(
                [interpreter, "-m", "compileall", "-q", str(folder / "runtime")], check=True
            )
            baselines, first_events = [], []
            for number in range(rounds):
                baselines.append(_baseline(interpreter, folder, variables))
                key = f"section/1/video/{python}-{number}.jsonl"
                line = json.dumps({**_STATEMENT, "id": f"{python}-{number}"})
                s3.put_object(Bucket=BUCKET, Key=key, Body=line.encode())
                first_events.append(_first_event(interpreter, folder, variables, key, number))
            ratio = statistics.median(first_events) / statistics.median(baselines)
            too_slow |= ratio > MAX_RATIO
            print(
                f"Python {python}: baseline {_summary(baselines)},"
                f" package with first event {_summary(first_events)}:"
                f" {ratio:.2f} times the baseline (limit {MAX_RATIO})"
            )
    return int(too_slow)


def _baseline(interpreter: str, folder: Path, variables: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [
            interpreter,
            "-I",
            "-S",
            "-B",
            "-c",
            _BASELINE,
            str(folder / "task"),
            str(folder / "runtime"),
        ],
        env=variables,
        check=True,
    )
    return time.perf_counter() - started


def _first_event(
    interpreter: str, folder: Path, variables: dict[str, str], key: str, number: int
) -> float:
    (scratch := folder / f"tmp-{number}").mkdir()
    started = time.perf_counter()
    with LambdaRuntime(
        folder / "task", folder / "runtime", scratch, variables, interpreter=interpreter
    ) as runtime:
        answer = runtime.invoke({"bucket": BUCKET, "key": key})
        seconds = time.perf_counter() - started
    if answer.failed or '"files_processed": 1' not in answer.payload["body"]:
        raise RuntimeError(f"the event was not processed: {answer.payload}")
    return seconds


def _summary(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms (min {min(seconds) * 1000:.0f})"


if __name__ == "__main__":
    sys.exit(main())
