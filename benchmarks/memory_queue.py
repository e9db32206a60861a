"""A queue in memory with SQS's rules: what is received is invisible for a while, and comes back
unless it is deleted.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass
class Message:
    """`sent` is when, on the queue's clock; `receives` is how often it was delivered."""

    id: str
    body: str
    sent: float
    receives: int = 0


class MemoryQueue:
    """Delivers each message at least once; threads may share it."""

    def __init__(self, visibility: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.visibility = visibility
        """Seconds for which a message that was received is invisible."""
        self.sent = 0
        self._clock = clock
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, int, Message]] = []
        """When each message is visible, as a heap; those that were deleted are still in it."""
        self._left: set[str] = set()

    def send(self, bodies: Iterable[str]) -> None:
        """Add messages, which are visible at once."""
        with self._changed:
            for body in bodies:
                self.sent += 1
                message = Message(f"m{self.sent}", body, self._clock())
                self._left.add(message.id)
                heapq.heappush(self._waiting, (message.sent, self.sent, message))
            self._changed.notify_all()

    def receive(self, most: int, wait: float) -> list[Message]:
        """Up to `most` messages that are visible now; waits up to `wait` seconds for one."""
        end = self._clock() + wait
        with self._changed:
            while not (taken := self._visible(most)):
                left = end - self._clock()
                if left <= 0:
                    break
                until = self._waiting[0][0] - self._clock() if self._waiting else left
                self._changed.wait(max(0.0, min(left, until)))
            return taken

    def _visible(self, most: int) -> list[Message]:
        taken: list[Message] = []
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now and len(taken) < most:
            _, number, message = heapq.heappop(self._waiting)
            if message.id in self._left:
                message.receives += 1
                taken.append(message)
                heapq.heappush(self._waiting, (now + self.visibility, number, message))
        return taken

    def delete(self, messages: Iterable[Message]) -> list[Message]:
        """Remove messages for good, as Lambda does after a success; gives those that were there."""
        with self._changed:
            found = [message for message in messages if message.id in self._left]
            self._left.difference_update(message.id for message in found)
            return found

    def __len__(self) -> int:
        """How many messages are not deleted."""
        with self._changed:
            return len(self._left)
