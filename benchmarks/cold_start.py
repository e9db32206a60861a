"""A cold start: a new process that imports the function and handles its first event.

The baseline is what nobody can avoid with these libraries: importing boto3, making an S3 client and
importing clickhouse-driver.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping

from benchmarks.setting import ROOT, WARM, one_object
from benchmarks.worker import Times, timed

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
    return _run(_FIRST_EVENT, variables, json.dumps(one_object(WARM)))


def baseline(variables: Mapping[str, str]) -> Times:
    """Seconds that a new process takes to import the libraries alone."""
    return _run(_BASELINE, variables)


def _run(code: str, variables: Mapping[str, str], *arguments: str) -> Times:
    command = [sys.executable, "-c", code, *arguments]
    return timed(lambda: subprocess.run(command, cwd=ROOT, env=variables, stdout=2, check=True))
