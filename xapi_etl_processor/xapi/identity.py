"""Ids of statements: how they are compared, and what stands in for a missing one."""

from __future__ import annotations

import re
from hashlib import sha256

from xapi_etl_processor.xapi.values import Kind, text

BLANKS = " \t\r\n"
"""What is trimmed off ids; SQL needs the same list."""

_CANONICAL_LENGTH = 36
_UUID = re.compile(
    r"(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?"
)
# What JSON can only escape as \u00xx.
_PLAIN = re.compile(rb"[a-z0-9_.:-]+")


def statement_id(value: object) -> str | None:
    """An id as it is compared: trimmed, A to Z in lower case, a UUID in its canonical form (RFC
    9562). docs/tables.md says the same in SQL.
    """
    found = text(value)
    if found is None:
        return None
    found = found.strip(BLANKS)
    found = found.lower() if found.isascii() else found.encode().lower().decode()
    # Most ids are canonical, and these comparisons are quicker than the expression.
    canonical = len(found) == _CANONICAL_LENGTH and found[8] == found[23] == "-"
    if not canonical and (uuid := _UUID.fullmatch(found)):
        return "-".join(uuid.groups())
    return found or None


def line_id(line: bytes) -> str:
    """The id of a statement that has none: a UUID of the first 16 bytes of its line's SHA-256."""
    digest = sha256(line).hexdigest()
    return "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))


def spelled(wanted: str) -> re.Pattern[bytes]:
    """Finds an id, as `statement_id` gives it, in any spelling in a text that need not be JSON."""
    if not (uuid := _UUID.fullmatch(wanted)):
        return re.compile(re.escape(wanted.encode()), re.IGNORECASE)
    text = "-?".join(uuid.groups()).encode()
    return re.compile(rb"(?<![0-9a-f])" + text + rb"(?![0-9a-f])", re.IGNORECASE)


def in_every_spelling(wanted: str) -> bytes:
    """What every spelling of an id has in it in lower case, unless JSON escapes it; of a UUID its
    last twelve digits.
    """
    if uuid := _UUID.fullmatch(wanted):
        return uuid[5].encode()
    return max(_PLAIN.findall(wanted.encode()), key=len, default=b"")


STATEMENT_ID = Kind(statement_id)
