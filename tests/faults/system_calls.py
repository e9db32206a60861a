"""Kills a process at its n-th system call of some kinds, with Debian's strace."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STRACE = shutil.which("strace")

RENAMES = "rename,renameat,renameat2"
KINDS = {
    "rename": RENAMES,
    "open": "openat,open,creat",
    "write": "write,pwrite64,writev",
    "sync": "fsync,fdatasync,sync_file_range",
    "folder": "mkdir,mkdirat,rmdir",
    "unlink": "unlink,unlinkat",
}
"""Kinds of system calls by which a database changes what is on its disk."""


@contextmanager
def killed_at(pid: int, calls: str, nth: int) -> Iterator[None]:
    """While the block runs, the process is killed when one of its threads makes its n-th of these
    calls, which then is not made.
    """
    inject = f"inject={calls}:error=EIO:signal=SIGKILL:when={nth}"
    with _attached(pid, "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject):
        yield


@contextmanager
def noted(pid: int, calls: str, log: Path) -> Iterator[None]:
    """While the block runs, these calls of the process are noted in a file, with paths."""
    with _attached(pid, "-y", "-s", "200", "-o", str(log), "-e", f"trace={calls}"):
        yield


@contextmanager
def _attached(pid: int, *options: str) -> Iterator[None]:
    assert STRACE
    tracer = subprocess.Popen(
        [STRACE, "-f", "-qq", *options, "-p", str(pid)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while not _all_traced(pid):
            assert tracer.poll() is None, "strace has ended: may it attach to processes?"
            assert time.monotonic() < end, "strace does not attach"
            time.sleep(0.01)  # Polls a condition, up to a limit.
        yield
    finally:
        tracer.terminate()
        tracer.wait(20)


def _all_traced(pid: int) -> bool:
    """Whether every thread of the process has a tracer."""
    try:
        statuses = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    except (FileNotFoundError, ProcessLookupError):
        return False  # A thread ended meanwhile.
    return bool(statuses) and not any("TracerPid:\t0\n" in status for status in statuses)
