"""How long the package takes to come up and answer its first event, beside what nobody can avoid.

python -m benchmarks.cold_start [ROUNDS]

The floor imports boto3, makes an S3 client and imports clickhouse-driver, from the same folders.
The package answers an event besides: it reads an object from S3 (moto) and writes to ClickHouse
(chDB), which run in processes of their own.
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
BAR = 1.25
_FLOOR = """
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
    """Measure every Python there is in turns; 1 if one passes the bar."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    machine = platform.machine()
    arch = next(name for name, wheels in ARCHITECTURES.items() if wheels == machine)
    late = False
    with tempfile.TemporaryDirectory() as name, cloud(BUCKET) as s3:
        told = {
            variable: value
            for variable, value in os.environ.items()
            if variable.startswith(("AWS_", "CLICKHOUSE_", "S3_XAPI_", "ENVIRONMENT"))
        }
        for python, interpreter in interpreters().items():
            folder = Path(name) / python
            folder.mkdir()
            build(folder / "package.zip", python, arch)
            unpack(folder / "package.zip", folder / "task")
            install_runtime(folder / "runtime", python)
            # The runtime's own code is compiled in Lambda; a package's is not.
            subprocess.run(
                [interpreter, "-m", "compileall", "-q", str(folder / "runtime")], check=True
            )
            floors, firsts = [], []
            for number in range(rounds):
                floors.append(_floor(interpreter, folder, told))
                key = f"section/1/video/{python}-{number}.jsonl"
                line = json.dumps({**_STATEMENT, "id": f"{python}-{number}"})
                s3.put_object(Bucket=BUCKET, Key=key, Body=line.encode())
                firsts.append(_first_event(interpreter, folder, told, key, number))
            ratio = statistics.median(firsts) / statistics.median(floors)
            late |= ratio > BAR
            print(
                f"Python {python}: floor {_said(floors)}, package and first event {_said(firsts)}:"
                f" {ratio:.2f} times (bar {BAR})"
            )
    return int(late)


def _floor(interpreter: str, folder: Path, told: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(
        [
            interpreter,
            "-I",
            "-S",
            "-B",
            "-c",
            _FLOOR,
            str(folder / "task"),
            str(folder / "runtime"),
        ],
        env=told,
        check=True,
    )
    return time.perf_counter() - started


def _first_event(
    interpreter: str, folder: Path, told: dict[str, str], key: str, number: int
) -> float:
    (scratch := folder / f"tmp-{number}").mkdir()
    started = time.perf_counter()
    with LambdaRuntime(
        folder / "task", folder / "runtime", scratch, told, interpreter=interpreter
    ) as runtime:
        answer = runtime.invoke({"bucket": BUCKET, "key": key})
        taken = time.perf_counter() - started
    if answer.failed or '"files_processed": 1' not in answer.payload["body"]:
        raise RuntimeError(f"the event was not processed: {answer.payload}")
    return taken


def _said(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1000:.0f} ms (from {min(seconds) * 1000:.0f})"


if __name__ == "__main__":
    sys.exit(main())
