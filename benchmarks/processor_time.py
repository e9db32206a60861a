"""How much processor other processes have used."""

from __future__ import annotations

import os
from pathlib import Path


def processor_seconds(pid: int) -> float:
    """Of a process and its threads, until now; 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def newest_child() -> int:
    """The process that this thread started last."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8")
    return int(found.split()[-1])


def busy_seconds() -> float:
    """Of all processes of the machine, and what its host took from it, until now."""
    first = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()
    user, nice, system, _idle, _waits, *interrupts = map(int, first[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
