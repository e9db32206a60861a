"""Loaders that can be killed, each a process of its own, and the queue in memory that feeds them by
the rules of SQS and of Lambda's event source mapping.

There is no visibility timeout: what fails or is killed is delivered again at once.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults import child
from tests.support.event_source_mapping import failed_messages
from tests.support.samples import sqs

IDLE_SECONDS = 0.2


class Message(NamedTuple):
    """What one delivery is made of. A bulk request is no message of SQS: it is a payload itself.
    A message of a real queue has its record, as Lambda passes it to the function.
    """

    id: str
    body: Any
    record: Any = None

    @property
    def is_bulk(self) -> bool:
        return isinstance(self.body, dict) and "mode" in self.body


@dataclass
class Queue:
    """Messages that are not done yet, of which a batch has up to `most`. Threads may share it."""

    most: int = 1
    sent: int = 0
    done: int = 0
    again: int = 0
    """Messages that were delivered again."""
    invocations: int = 0
    waiting: deque[Message] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def send(self, bodies: list[Any]) -> None:
        """Add messages at the end."""
        with self.changed:
            for body in bodies:
                self.waiting.append(Message(f"m{self.sent}", body))
                self.sent += 1
            self.changed.notify_all()

    def receive(self) -> list[Message]:
        """A batch of messages, or one bulk request; nothing if none arrives for a while."""
        taken: list[Message] = []
        with self.changed:
            self.changed.wait_for(lambda: self.waiting, IDLE_SECONDS)
            while self.waiting and len(taken) < self.most:
                if taken and (taken[0].is_bulk or self.waiting[0].is_bulk):
                    break
                taken.append(self.waiting.popleft())
            return taken

    def settle(self, taken: list[Message], left: list[Message]) -> None:
        """End one receive; what is left of it is delivered again."""
        with self.changed:
            self.waiting.extend(left)
            self.invocations += 1
            self.again += len(left)
            self.done += len(taken) - len(left)
            self.changed.notify_all()

    @property
    def left(self) -> int:
        """How many messages are not done."""
        with self.changed:
            return self.sent - self.done


class Worker(threading.Thread):
    """Passes what the queue has to a loader in its own process, by Lambda's rules."""

    def __init__(self, queue: Queue, variables: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self.ended = False
        self.busy = threading.Event()
        self._queue, self._variables = queue, variables
        self._lost = 0.0
        self.loader = self._new()

    def _new(self) -> subprocess.Popen[bytes]:
        return child.waiting(self._variables, subprocess.DEVNULL)

    @property
    def processor(self) -> float:
        """Seconds of processor that its processes have used."""
        return self._lost + child.processor_seconds(self.loader.pid)

    def kill(self) -> None:
        """Kill the loader, as if its machine had failed."""
        self._lost += child.processor_seconds(self.loader.pid)
        self.loader.kill()

    def run(self) -> None:
        """Load until `ended` is set."""
        while not self.ended:
            if taken := self._queue.receive():
                self._queue.settle(taken, self.work(taken))

    def work(self, taken: list[Message]) -> list[Message]:
        """The messages left after one invocation: all of them if the loader was killed."""
        (first, *_), is_bulk = taken, taken[0].is_bulk
        payload = first.body if is_bulk else sqs(**{one.id: one.body for one in taken})
        if first.record:
            payload = {"Records": [one.record for one in taken]}
        self.busy.set()
        line = child.ask(self.loader, payload)
        self.busy.clear()
        if not line:
            self.loader.communicate()
            self.loader = self._new()
            return taken
        if b'"raised"' in line:
            return taken
        if is_bulk:
            body = child.parsed(line)
            if not body["success"]:
                return taken
            token = body["continuation_token"]
            more = {"mode": "bulk", "continuation_token": token}
            return [first._replace(body=more)] if token else []
        failed = failed_messages([one.id for one in taken], line)
        return [one for one in taken if one.id in failed]

    def close(self) -> None:
        """End the thread and its process."""
        self.ended = True
        if self.is_alive():
            self.join(60)
        self.loader.kill()
        self.loader.communicate()


@contextmanager
def working(
    queue: Queue, number: int, variables: dict[str, str], warm_up: Any = None
) -> Iterator[list[Worker]]:
    """So many workers; each has loaded the message `warm_up` before any begins."""
    workers = [Worker(queue, variables) for _ in range(number)]
    try:
        for worker in workers:
            left = worker.work([Message("warm-up", warm_up)]) if warm_up else []
            assert not left, "the loader failed at its first event"
        for worker in workers:
            worker.start()
        yield workers
    finally:
        for worker in workers:
            worker.ended = True
        for worker in workers:
            worker.close()


def wait_until(
    condition: Callable[[], Any], seconds: float, what: str, then: Callable[[], object] = lambda: 0
) -> Any:
    """What the condition gives once it is true; until then, `then` is called every few
    milliseconds. Raises TimeoutError.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} took more than {seconds:.0f} seconds")
        then()
        time.sleep(0.01)
    return found
