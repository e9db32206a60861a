"""What single steps take: the figures that the simulation is made of, each with the command that
measured it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_suffix(".json")
"""The name of each number, its value, its unit, and how it was found. The file may have numbers
that are not used here."""


class Coefficients(NamedTuple):
    """Milliseconds and microseconds, of time or of one full processor; the file says how they were
    found.
    """

    invocation_cpu_ms: float
    object_cpu_ms: float
    statement_cpu_us: float
    insert_cpu_ms: float
    request_ms: float
    clickhouse_wait_ms: float
    row_wait_us: float
    server_insert_ms: float
    server_row_us: float
    merge_part_ms: float
    merge_row_us: float
    receive_ms: float
    outage_ms: float


def coefficients() -> Coefficients:
    """Those in the file. Raises KeyError if one is missing."""
    found = read()
    return Coefficients(*(found[name]["value"] for name in Coefficients._fields))


def read() -> dict[str, dict[str, Any]]:
    """All that the file has, by name."""
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def write(values: Mapping[str, float], units: Mapping[str, str], how: str) -> None:
    """Put these values into the file; the others stay."""
    found = read() if FILE.exists() else {}
    for name, value in values.items():
        found[name] = {"value": float(f"{value:.3g}"), "unit": units[name], "how": how}
    FILE.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
