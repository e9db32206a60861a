"""A process that is measured: it does what standard input asks for, again and again.

Each line of standard input is a command of COMMANDS and its arguments, as JSON; each line of
standard output is the answer, in seconds of time and of processor. It stays warm between them, as a
Lambda does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.clickhouse_import import Importer

S3_CONCURRENCY = "BENCHMARK_S3_CONCURRENCY"
"""The variable that changes how many small objects a worker fetches at the same time."""

Times = dict[str, float]
Ask = Callable[..., Times]
_ROOT = Path(__file__).parents[1]


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[Ask]:
    """A worker with these variables; gives a function that sends it a command."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(command: str, **arguments: Any) -> Times:
            questions.write(json.dumps([command, arguments]) + "\n")
            questions.flush()
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"the process that measures {command} ended: see above")
            return dict(json.loads(answer))

        yield ask
        questions.close()


def timed(call: Callable[[], Any]) -> Times:
    """How long a call takes, and how much processor time all threads of this process use."""
    started, used = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}


def load(payload: dict[str, Any], statements: int, objects: int) -> Times:
    """Send a payload to the handler, and check what it answers."""
    from xapi_etl_processor.base.config import Settings
    from xapi_etl_processor.lambda_function import handler
    from xapi_etl_processor.run import connections

    if at_once := os.environ.get(S3_CONCURRENCY):
        # The handler uses the same connections.
        connections(Settings.from_env(os.environ)).s3.concurrency = int(at_once)
    answers: list[Any] = []
    times = timed(lambda: answers.append(handler(payload)))
    body = json.loads(answers[0]["body"])
    found = body["events_processed"], body["files_found"], body["files_failed"]
    if found != (statements, objects, 0):
        raise RuntimeError(f"the loader answered {body}")
    return times


def memory() -> Times:
    """The most memory that this process has had until now, in MB."""
    # getrusage would count what the parent had when it started this process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return {"megabytes": int(found[1]) * 1024 / 1e6}


def import_file(path: str) -> Times:
    """ClickHouse's own import of a file, on one thread."""
    return _importer().load_file(path)


def import_s3(url: str, threads: int = 0) -> Times:
    """ClickHouse's own import of objects."""
    return _importer().load_s3(url, threads)


@cache
def _importer() -> Importer:
    return Importer()


def get_objects(bucket: str, keys: list[str]) -> Times:
    """Get each object with boto3, one after the other, and do nothing with it."""
    client = _boto3_client()
    return timed(lambda: [client.get_object(Bucket=bucket, Key=k)["Body"].read() for k in keys])


@cache
def _boto3_client() -> Any:
    import boto3

    return boto3.client("s3")


def plain_loader(path: str) -> Times:
    """The loader as people write it; see plain_loader.py."""
    from benchmarks.plain_loader import load_file

    return timed(lambda: load_file(path))


def stages(path: str) -> Times:
    """Seconds of processor for each stage of the file's way to columns; see stages.py."""
    from benchmarks.stages import measure

    return measure(Path(path))


COMMANDS: dict[str, Callable[..., Times]] = {
    command.__name__: command
    for command in (load, memory, import_file, import_s3, get_objects, plain_loader, stages)
}


def main() -> None:
    """Answer commands until standard input ends."""
    # What the loader prints must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            command, arguments = json.loads(line)
            print(json.dumps(COMMANDS[command](**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
