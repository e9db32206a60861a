"""Lambda's event source mapping for a queue in memory: pollers that pass batches to the real
handler, each in a process of its own that may be killed.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import BytesIO

from benchmarks.memory_queue import MemoryQueue, Message
from benchmarks.processor_time import processor_seconds
from tests.faults import child
from tests.support.event_source_mapping import failed_messages

_IDLE_SECONDS = 0.2


@dataclass
class Log:
    """What the pollers of a queue did. Times are in seconds."""

    delays: list[float] = field(default_factory=list)
    """From sending a message to its success."""

    durations: list[float] = field(default_factory=list)
    """Of each invocation that ended."""

    killed: int = 0
    lost_processor: float = 0.0
    """Seconds of processor that killed processes had used."""
    again: int = 0
    """Messages that were left in the queue by an invocation, to be delivered again."""

    ended: float = 0.0
    """When the last message succeeded."""


class Poller(threading.Thread):
    """Receives a batch, invokes, and deletes what succeeded, until it is stopped."""

    def __init__(
        self, queue: MemoryQueue, log: Log, variables: Mapping[str, str], size: int, window: float
    ) -> None:
        super().__init__(daemon=True)
        self.busy = threading.Event()
        self.ended = threading.Event()
        self._queue, self._log, self._variables = queue, log, dict(variables)
        self._size, self._window = size, window
        self.process = self._loader()

    def warm_up(self, body: str) -> None:
        """Have the process load everything that it needs, with an object that is in the ledger
        already.
        """
        answer = self._ask([Message("warm-up", body, 0.0)])
        if failed_messages(["warm-up"], _response(answer), reports=True):
            raise RuntimeError(f"the loader answered {answer!r} to its first event")

    def run(self) -> None:
        """Poll until stopped."""
        while not self.ended.is_set():
            if batch := self._batch():
                self._deliver(batch)

    def kill(self) -> None:
        """Kill the process, as if its machine had failed."""
        self._log.lost_processor += processor_seconds(self.process.pid)
        self.process.kill()

    def close(self) -> None:
        """End the process; the thread must have been stopped."""
        self.process.kill()
        self.process.communicate()

    def _batch(self) -> list[Message]:
        """What arrives within the window after the first message, or a full batch."""
        batch = self._queue.receive(self._size, _IDLE_SECONDS)
        end = time.monotonic() + self._window
        while batch and len(batch) < self._size and (left := end - time.monotonic()) > 0:
            batch += self._queue.receive(self._size - len(batch), left)
        return batch

    def _deliver(self, batch: list[Message]) -> None:
        started = time.monotonic()
        answer = self._ask(batch)
        ended = time.monotonic()
        failed = failed_messages([one.id for one in batch], _response(answer), reports=True)
        if not answer:
            self._log.killed += 1
            self.process.communicate()
            self.process = self._loader()
        else:
            self._log.durations.append(ended - started)
        done = [one for one in batch if one.id not in failed]
        self._log.again += len(failed)
        # Another poller may have been as far, if it took longer than messages are invisible.
        if first := self._queue.delete(done):
            self._log.delays += [ended - one.sent for one in first]
            self._log.ended = max(self._log.ended, ended)

    def _loader(self) -> subprocess.Popen[bytes]:
        return child.waiting(self._variables, subprocess.DEVNULL)

    def _ask(self, batch: list[Message]) -> bytes:
        """The process's answer as a line; empty if it was killed."""
        assert self.process.stdin
        assert self.process.stdout
        records = [
            {"messageId": one.id, "eventSource": "aws:sqs", "body": one.body} for one in batch
        ]
        with suppress(OSError):
            self.process.stdin.write(json.dumps({"Records": records}).encode() + b"\n")
            self.process.stdin.flush()
            self.busy.set()
            try:
                return self.process.stdout.readline()
            finally:
                self.busy.clear()
        return b""


def _response(answer: bytes) -> dict[str, object]:
    """An answer as Lambda gives it."""
    if not answer or b'"raised"' in answer:
        return {"FunctionError": "Unhandled"}
    return {"Payload": BytesIO(answer)}


@contextmanager
def polling(
    queue: MemoryQueue,
    count: int,
    variables: Mapping[str, str],
    warm_up: str,
    *,
    size: int = 1,
    window: float = 0.0,
) -> Iterator[tuple[Sequence[Poller], Log]]:
    """So many pollers, each with a warm process."""
    log = Log()
    pollers = [Poller(queue, log, variables, size, window) for _ in range(count)]
    try:
        for poller in pollers:
            poller.warm_up(warm_up)
        for poller in pollers:
            poller.start()
        yield pollers, log
    finally:
        for poller in pollers:
            poller.ended.set()
        for poller in pollers:
            if poller.is_alive():
                poller.join(60)
            poller.close()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every few milliseconds; raises TimeoutError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took more than {seconds:.0f} seconds")
        time.sleep(0.02)
