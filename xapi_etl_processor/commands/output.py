"""Exit codes, and how answers are printed."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

OK, FAILED, USAGE = 0, 1, 2
"""Success; something failed, and the answer says what; the request or configuration is wrong."""

_STEERING = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""DEL, the C1 controls and those of writing direction, which JSON does not escape by itself."""


def print_json(body: Any) -> None:
    """Print an answer on standard output, indented, times as text, without characters that steer a
    terminal.
    """
    print(_STEERING.sub(_escaped, json.dumps(body, indent=2, ensure_ascii=False, default=str)))


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def say(text: str) -> None:
    """Tell the user something on standard error, beside the answer."""
    print(f"xapi_etl_processor: {text}", file=sys.stderr)
