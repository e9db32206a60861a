"""The faults to try, as a mutation tool made them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

TOP_ROOMS = ("modes", "pipeline")
"""The tests of the modules at the top of the package."""


class Fault(NamedTuple):
    """A file with one mistake in it, and the tests that may find it."""

    file: str
    line: int
    about: str
    code: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.about}"

    def diff(self) -> str:
        """The lines that differ from the file without the mistake."""
        lines = difflib.unified_diff(
            (ROOT / self.file).read_text().splitlines(), self.code.splitlines(), lineterm="", n=0
        )
        return "\n".join(f"    {line}" for line in list(lines)[2:] if not line.startswith("@@"))


def generated(path: Path) -> Iterator[Fault]:
    """The faults that tests/mutants/generate.py wrote."""
    for text in path.read_text().splitlines():
        entry = json.loads(text)
        yield Fault(**entry, tests=_first_tests(entry["file"]))


def _first_tests(file: str) -> tuple[str, ...]:
    """The tests that are tried first, the slow ones too, before all of `make test-fast`: those of
    the module's room.
    """
    room = file.removeprefix("xapi_etl_processor/").split("/")[0]
    rooms = TOP_ROOMS if room.endswith(".py") else (room,)
    return tuple(f"tests/{name}/" for name in rooms)
