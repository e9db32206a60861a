"""What is wrong with a file or a line that is no statement, in the words of whoever wrote it."""

from __future__ import annotations

import json

from xapi_etl_processor.xapi.parse import WHITESPACE

HEAD_BYTES = 64 * 1024
"""How much of a file is looked at. Our choice."""

_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")
_BRACKETS_OF_TWO_BYTES = (b"{\0", b"\0{", b"[\0", b"\0[")
_BEGINNINGS = (b"{", b"[", b"[{")


def of_file(head: bytes) -> str:
    """What a file is instead of a bundle, by its first bytes, and what to do; '' if that cannot be
    told.
    """
    if head.startswith(_BYTE_ORDER_MARKS) or head[:2] in _BRACKETS_OF_TWO_BYTES:
        return "It is UTF-16: write it as UTF-8."
    text = head.strip(WHITESPACE)
    first = text.partition(b"\n")[0].strip(WHITESPACE)
    if not text.startswith((b"{", b"[")) or (
        first not in _BEGINNINGS and b"\n" not in _value(text)
    ):
        return ""
    if text.startswith(b"["):
        return (
            "It is one JSON array: write each statement on a line of its own, as jq -c '.[]' does."
        )
    return "Its JSON is pretty-printed: write each statement on a line of its own, as jq -c . does."


def of_line(line: bytes) -> str:
    """What a line is instead of a statement, and what to do; '' if that cannot be told."""
    line = line.strip(WHITESPACE)
    value = _value(line) if line.startswith(b"{") else b""
    rest = line[len(value) :].lstrip(WHITESPACE) if value else b""
    if rest == b",":
        return "a comma follows the statement: leave it out"
    if rest.startswith((b"{", b",")):
        return "several statements on one line: write each on a line of its own, ended by \\n"
    return ""


def _value(text: bytes) -> bytes:
    """The JSON value that a text begins with; b'' if it does not begin with a whole one."""
    try:
        shown = text.decode(errors="surrogateescape")
        end = json.JSONDecoder().raw_decode(shown)[1]
    except (ValueError, RecursionError):
        return b""
    return shown[:end].encode(errors="surrogateescape")
