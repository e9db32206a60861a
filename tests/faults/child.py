"""The loader in its own process, which tests can kill, limit, and run several times at once.

python -m tests.faults.child < payloads > answers
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT = "CHILD_ADDRESS_SPACE_MB"


def waiting(variables: dict[str, str], stderr: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """A process that waits for payloads, with this process's environment; it logs nothing."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "POWERTOOLS_METRICS_DISABLED": "true", **variables}
        | {"LOG_LEVEL": "CRITICAL"},
    )


def ask(child: subprocess.Popen[bytes], payload: Any) -> bytes:
    """The answer of a process that waits, as a line; empty if it was killed."""
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(json.dumps(payload).encode() + b"\n")
        child.stdin.flush()
        return child.stdout.readline()
    except OSError:
        return b""


def start(payload: Any, **variables: str) -> subprocess.Popen[bytes]:
    """A process that handles one payload and ends."""
    child = waiting(variables)
    assert child.stdin
    child.stdin.write(json.dumps(payload).encode() + b"\n")
    child.stdin.close()
    child.stdin = None
    return child


def body_of(child: subprocess.Popen[bytes], seconds: float = 60) -> dict[str, Any]:
    """Its answer, once it has ended; raises AssertionError if it raised or was killed."""
    out, err = child.communicate(timeout=seconds)
    assert child.returncode == 0, (child.returncode, err.decode()[-2000:])
    return parsed(out)


def parsed(line: bytes) -> dict[str, Any]:
    """The body of an answer, or the answer to an SQS batch; AssertionError if the loader raised."""
    answer = json.loads(line)
    assert "raised" not in answer, answer
    body: dict[str, Any] = json.loads(answer["body"]) if "body" in answer else answer
    return body


def processor_seconds(pid: int) -> float:
    """Seconds of processor that a process has used until now; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Answer each payload, one line of standard input; within an address space limit if set."""
    from tests.support.samples import context
    from xapi_etl_processor.lambda_function import handler

    if limit := os.environ.get(LIMIT):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int(limit) * 1024**2
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for line in sys.stdin:
        try:
            answer = handler(json.loads(line), context(600))
        except Exception as error:  # noqa: BLE001  # as Lambda does: the invocation failed
            answer = {"raised": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
