"""How long a local service runs: until a signal or, if asked, until its parent process ends."""

from __future__ import annotations

import os
import select
import signal
import sys

POLL_SECONDS = 0.02
"""How often a server looks whether it should stop: whoever stops it waits that long. Our limit; the
library's is 0.5."""


class StopRequest:
    """Waits for SIGINT or SIGTERM or, with_parent, for the end of standard input.

    A parent that holds the other end of standard input cannot leave the service behind, even if
    the parent is killed. A signal that comes before `wait` is not lost.
    """

    def __init__(self, *, with_parent: bool = False) -> None:
        # A pipe, because a signal handler that sets a threading.Event can deadlock.
        self._requested, self._request = os.pipe()
        self._sources = [self._requested, *([sys.stdin.fileno()] if with_parent else [])]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def wait(self) -> None:
        """Block until the service should stop."""
        while True:
            ready, _, _ = select.select(self._sources, [], [])
            if self._requested in ready or not os.read(ready[0], 1024):
                return

    def _on_signal(self, *_: object) -> None:
        os.write(self._request, b"!")
