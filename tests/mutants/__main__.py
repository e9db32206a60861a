"""Puts faults into copies of this project, one at a time, and counts how many the tests catch.

    make mutants MUTANTS=200 SEED=1 ONLY=storage/

Each is tried with the tests of its module; one that passes them, with all the tests of make
test-fast. Ctrl-C ends it with a summary. The project itself is never changed.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.copy import FAST, Copy
from tests.mutants.faults import Fault, generated

WANTED = 0.9
"""The share of generated faults to catch. Our goal: it is not 1 since some change nothing."""


def summary(results: dict[Fault, str | None]) -> tuple[str, bool]:
    """What was tried, caught and left, and whether that is good enough."""
    survived = [fault for fault, test in results.items() if test is None]
    lines = [f"\nsurvived: {fault}\n{fault.diff()}" for fault in survived]
    share = 1 - len(survived) / max(len(results), 1)
    lines.append(f"\n{len(results)} tried, {share:.1%} caught, {len(survived)} survived")
    return "\n".join(lines), share >= WANTED


def tried(faults: list[Fault], copies: list[Copy]) -> Iterator[tuple[Fault, str | None]]:
    """Each fault with the test that caught it, as soon as that is known."""
    free: SimpleQueue[Copy] = SimpleQueue()
    for copy in copies:
        free.put(copy)

    def attempt(fault: Fault) -> str | None:
        copy = free.get()
        try:
            return copy.caught_by(fault)
        finally:
            free.put(copy)

    with ThreadPoolExecutor(len(copies)) as pool:
        attempts: dict[Future[str | None], Fault] = {pool.submit(attempt, f): f for f in faults}
        try:
            for done in as_completed(attempts):
                yield attempts[done], done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for copy in copies:
                copy.stop()


def failing_without(faults: list[Fault], copy: Copy) -> str | None:
    """A test that fails although there is no fault; None if there is none."""
    named = sorted({test for fault in faults for test in fault.tests})
    found = copy.failing(*named) if named else None
    return found or copy.failing(*FAST)


@contextmanager
def folders(count: int) -> Iterator[list[Path]]:
    """New folders that are deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        made = [Path(name) / str(number) for number in range(count)]
        for folder in made:
            folder.mkdir()
        yield made


def main() -> int:
    """Try the faults; 1 if too many survive, 2 if the tests fail without any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("faults", type=Path, help="what tests.mutants.generate wrote")
    parser.add_argument("--copies", type=int, default=2, help="tried at once (%(default)s)")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    faults = list(generated(options.faults))
    results: dict[Fault, str | None] = {}
    start = time.monotonic()
    with folders(options.copies) as places:
        try:
            copies = [Copy(place) for place in places]
            print(f"{len(faults)} faults. First, their tests without a fault.", flush=True)
            if failed := failing_without(faults, copies[0]):
                print(f"mutants: {failed} fails without a fault: mend it first", file=sys.stderr)
                return 2
            for fault, test in tried(faults, copies):
                results[fault] = test
                passed = time.monotonic() - start
                print(f"{passed:6.0f} s  {fault}: {test or 'SURVIVED'}", flush=True)
        except KeyboardInterrupt:
            print("stopped")
    text, good = summary(results)
    print(text)
    return 0 if good and len(results) == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
