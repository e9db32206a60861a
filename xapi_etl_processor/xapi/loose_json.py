"""JSON of any shape, for lines that the typed decode does not take."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_decode_any = msgspec.json.Decoder(float_hook=float).decode

# Each escape of a text, surrogates in pairs: what is left of \ud800 to \udfff stands alone.
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)

# Learning Locker's exports have it for each dot of an extension's key, since its database allows
# none there. https://docs.learninglocker.net/http-xapi-statements/
_ESCAPED_DOT = b"&46;"

_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"(?P<key>\s*+:)?|\\?\Z)', re.DOTALL)
"""A text in quotes, and whether it is a key. One that is not closed runs to the end of the line, so
that no quote is looked at twice."""


def with_dots(line: bytes) -> bytes:
    """The JSON text with dots in its keys, where an export has escaped them."""
    # Looking for one byte first takes a quarter of the time, and most lines do not have it.
    if b"&" not in line or _ESCAPED_DOT not in line:
        return line
    return _TEXT.sub(
        lambda found: found[0].replace(_ESCAPED_DOT, b".") if found["key"] else found[0], line
    )


def any_json(line: bytes) -> Any:
    """JSON of any shape; a number too large for a float is infinity. Raises ValueError for invalid
    JSON, and RecursionError for JSON that is nested too deeply.
    """
    try:
        return _decode_any(line)
    except msgspec.ValidationError:
        # An integer has more digits than Python converts (sys.int_info). The standard library
        # lets us convert integers ourselves.
        line = without_lone_surrogates(line)
        return json.loads(line, parse_int=_integer, parse_constant=_no_constant)
    except msgspec.DecodeError:
        mended = without_lone_surrogates(line)
        if mended == line:
            raise
        return any_json(mended)


def without_lone_surrogates(line: bytes) -> bytes:
    """The JSON text with U+FFFD in place of each escaped surrogate that has no partner, as a title
    has that was cut inside an emoji: no UTF-8 text can hold it.
    """
    if b"\\ud" not in line and b"\\uD" not in line:
        return line
    return _ESCAPE.sub(lambda found: rb"\ufffd" if found["lone"] else found[0], line)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 640 else float("inf")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
