"""A cold start: a new process that imports the function and handles its first event.

The baseline is what nobody can avoid with these libraries: importing boto3, making an S3 client and
importing clickhouse-driver.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.setting import ROOT, WARM, one_object
from benchmarks.worker import Times, timed
from deployment.package import ARCHITECTURES, build
from local.lambda_runtime import LambdaRuntime, install_runtime, unpack

_FIRST_EVENT = """
import json, sys
from xapi_etl_processor.lambda_function import handler
answer = handler(json.loads(sys.argv[1]))
assert json.loads(answer["body"])["files_processed"] == 1, answer
"""
_BASELINE = """
import boto3
boto3.client("s3")
from clickhouse_driver import Client
"""


def first_event(variables: Mapping[str, str]) -> Times:
    """Seconds that a new process takes to import the function and handle an event."""
    return _run(sys.executable, "-c", _FIRST_EVENT, json.dumps(one_object(WARM)), env=variables)


def baseline(variables: Mapping[str, str]) -> Times:
    """Seconds that a new process takes to import the libraries alone."""
    return _run(sys.executable, "-c", _BASELINE, env=variables)


def _run(*command: str, env: Mapping[str, str]) -> Times:
    return timed(lambda: subprocess.run(command, cwd=ROOT, env=env, stdout=2, check=True))


@dataclass(frozen=True)
class Package:
    """The unpacked deployment package, beside what Lambda's runtime has.

    As in Lambda, the runtime is compiled to bytecode and the package is not.
    """

    task: Path
    runtime: Path
    scratch: Path

    def first_event(self, variables: Mapping[str, str]) -> Times:
        """Seconds that the package takes to handle an event in a new runtime."""

        def handle() -> None:
            with LambdaRuntime(self.task, self.runtime, self.scratch, variables) as runtime:
                answer = runtime.invoke(one_object(WARM))
            if answer.failed or json.loads(answer.payload["body"])["files_processed"] != 1:
                raise RuntimeError(f"the event was not processed: {answer.payload}")

        return timed(handle)

    def baseline(self, variables: Mapping[str, str]) -> Times:
        """Seconds that a new process takes to import the same libraries from the same folders."""
        paths = f"import sys; sys.path[:0] = {[str(self.task), str(self.runtime)]}"
        return _run(sys.executable, "-I", "-S", "-B", "-c", paths + _BASELINE, env=variables)


@contextmanager
def unpacked() -> Iterator[Package]:
    """The deployment package for this Python and processor, built and unpacked."""
    machine = platform.machine()
    arch = next(name for name, wheels in ARCHITECTURES.items() if wheels == machine)
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with TemporaryDirectory() as name:
        folder = Path(name)
        build(folder / "package.zip", python, arch)
        package = Package(folder / "task", folder / "runtime", folder / "tmp")
        unpack(folder / "package.zip", package.task)
        install_runtime(package.runtime, python)
        package.scratch.mkdir()
        compiling = [sys.executable, "-m", "compileall", "-q", str(package.runtime)]
        subprocess.run(compiling, check=True)
        yield package
