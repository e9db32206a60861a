"""The loader in a process of its own: to be killed, limited, and run eight times at once.

python -m tests.faults.child < payload > answer
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

LIMIT = "CHILD_ADDRESS_SPACE_MB"


def start(payload: Any, **variables: str) -> subprocess.Popen[bytes]:
    """A process at work on the payload, with this process's environment."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "POWERTOOLS_METRICS_DISABLED": "true", **variables},
    )
    assert child.stdin
    child.stdin.write(json.dumps(payload).encode())
    child.stdin.close()
    child.stdin = None
    return child


def body_of(child: subprocess.Popen[bytes], seconds: float = 60) -> dict[str, Any]:
    """What it answered, when it has ended."""
    out, err = child.communicate(timeout=seconds)
    assert child.returncode == 0, (child.returncode, err.decode()[-2000:])
    answer = json.loads(out.splitlines()[-1])
    body: dict[str, Any] = json.loads(answer["body"]) if "body" in answer else answer
    return body


def main() -> None:
    """Answer the payload on standard input; within an address space, if one is set."""
    from tests.conftest import context
    from xapi_etl_processor.lambda_function import handler

    if limit := os.environ.get(LIMIT):
        import resource

        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115, PTH123
        most = used + int(limit) * 1024**2
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    answer = handler(json.load(sys.stdin), context(600))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
