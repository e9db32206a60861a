"""A process that is measured: it does what standard input asks for, again and again.

Each line of standard input is a function of this module or of yardsticks.py and its arguments, as
JSON; each line of standard output is the answer, in seconds of time and of processor. It stays warm
between them, as a Lambda does.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.rounds import timed

REMAINING_MS = 900_000
"""What an invocation of a quarter of an hour has left."""

ROOT = Path(__file__).parents[1]
Ask = Callable[..., dict[str, float]]


@contextmanager
def running(environment: Mapping[str, str]) -> Iterator[Ask]:
    """A worker with these variables; gives a function that sends it a command."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.worker"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(command: str, **arguments: Any) -> dict[str, float]:
            questions.write(json.dumps([command, arguments]) + "\n")
            questions.flush()
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"the process that measures {command} ended: see above")
            return dict(json.loads(answer))

        yield ask
        questions.close()


def load(payload: dict[str, Any], statements: int, objects: int) -> dict[str, float]:
    """Send a payload to the handler, and check what it answers."""
    from xapi_etl_processor.lambda_function import handler

    answers: list[Any] = []
    # As in Lambda, each call has a deadline.
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: REMAINING_MS)
    times = timed(lambda: answers.append(handler(payload, context)))
    body = json.loads(answers[0]["body"])
    found = body["events_processed"], body["files_found"], body["files_failed"]
    if found != (statements, objects, 0):
        raise RuntimeError(f"the loader answered {body}")
    return times


def memory() -> dict[str, float]:
    """The most memory that this process has had until now, in MB."""
    # getrusage would count what the parent had when it started this process.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return {"megabytes": int(found[1]) * 1024 / 1e6}


def _command(name: str) -> Ask:
    own: dict[str, Ask] = {"load": load, "memory": memory}
    if name not in own:
        # Imported here, since a new process that only loads must not wait for it.
        from benchmarks import yardsticks

        own[name] = getattr(yardsticks, name)
    return own[name]


def main() -> None:
    """Answer commands until standard input ends."""
    # What the loader prints must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            command, arguments = json.loads(line)
            print(json.dumps(_command(command)(**arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
