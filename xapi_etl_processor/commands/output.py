"""Exit codes, and how answers are printed."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.base.telemetry import counted

OK, FAILED, USAGE = 0, 1, 2
"""Success; something failed, and the answer says what; the request or configuration is wrong."""

TOLD_SECONDS = 10
"""How often a long command tells how far it is. Our choice."""

_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""DEL, the C1 controls and those of writing direction, which JSON does not escape by itself."""


def print_json(body: Any) -> None:
    """Print an answer on standard output, without characters that steer a terminal."""
    text = json.dumps(body, indent=2, ensure_ascii=False, default=str)
    print(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(text: str) -> None:
    """Tell the user something on standard error, beside the answer."""
    print(f"xapi_etl_processor: {text}", file=sys.stderr)


def open_private(path: Path) -> TextIO:
    """Open a file to write that only the user may read. Raises OSError."""
    path.touch(0o600)
    if path.is_file():  # A folder, which cannot be opened, keeps its rights.
        path.chmod(0o600)
    return path.open("w", encoding="utf-8", newline="")


def agreed(found: Any, question: str) -> bool:
    """Whether the person at the terminal wants it, having seen what there is. Raises BadRequest if
    there is no terminal.
    """
    if not sys.stdin.isatty():
        raise BadRequest("this cannot be undone: look with --dry-run, then add --yes")
    print_json(found)
    say(f"{question} [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def counting() -> Callable[[int], None]:
    """A function to call with the statements of each object; it tells how many there were."""
    objects = statements = 0
    told = time.monotonic()

    def count(more: int) -> None:
        nonlocal objects, statements, told
        objects += 1
        statements += more
        if time.monotonic() - told >= TOLD_SECONDS:
            told = time.monotonic()
            more_known = f", {counted(statements, 'statement')}" if statements else ""
            say(f"{counted(objects, 'object')}{more_known} so far")

    return count
