"""How long a local service runs: until a signal or, if asked, until its parent process ends."""

from __future__ import annotations

import os
import signal
import sys
import threading


def stop_event(*, with_parent: bool = False) -> threading.Event:
    """An event that SIGINT and SIGTERM set; with_parent, so does the end of standard input.

    A parent that holds the other end of that pipe cannot leave the service behind, even if the
    parent is killed.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    if with_parent:
        threading.Thread(target=_wait_for_parent, args=(stopped,), daemon=True).start()
    return stopped


def _wait_for_parent(stopped: threading.Event) -> None:
    # Not sys.stdin.read(): the lock that it holds would abort the interpreter's shutdown.
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stopped.set()
