"""Exit codes, and how answers are printed."""

from __future__ import annotations

import json
import sys
from typing import Any

OK, FAILED, USAGE = 0, 1, 2
"""Success; something failed, and the answer says what; the request or configuration is wrong."""


def print_json(body: Any) -> None:
    """Print an answer on standard output, indented; times as text."""
    print(json.dumps(body, indent=2, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """Tell the user something on standard error, beside the answer."""
    print(f"xapi_etl_processor: {text}", file=sys.stderr)
