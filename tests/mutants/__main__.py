"""Puts faults into a copy of this project, one at a time, and counts how many the tests catch.

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
from pathlib import Path

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


def main() -> int:
    """Try the faults; 1 if too many survive, 2 if the tests fail without any fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("faults", type=Path, help="what tests.mutants.generate wrote")
    options = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    faults = list(generated(options.faults))
    results: dict[Fault, str | None] = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = Copy(Path(folder))
        try:
            print(f"{len(faults)} faults. First, their tests without a fault.", flush=True)
            named = sorted({test for fault in faults for test in fault.tests})
            if failed := (named and copy.failing(*named)) or copy.failing(*FAST):
                print(f"mutants: {failed} fails without a fault: mend it first", file=sys.stderr)
                return 2
            for fault in faults:
                test = results[fault] = copy.caught_by(fault)
                passed = time.monotonic() - start
                print(f"{passed:6.0f} s  {fault}: {test or 'SURVIVED'}", flush=True)
        except KeyboardInterrupt:
            print("stopped")
    text, good = summary(results)
    print(text)
    return 0 if good and len(results) == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
