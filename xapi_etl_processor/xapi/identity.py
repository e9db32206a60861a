"""Ids of statements: how they are compared, and what stands in for a missing one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from xapi_etl_processor.xapi.values import Kind, text

BLANKS = " \t\r\n"
"""What is trimmed off ids; SQL needs the same list."""

_CANONICAL_LENGTH = 36
_UUID = re.compile(
    r"(?:urn:uuid:)?\{?([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})\}?"
)


def statement_id(value: object) -> str | None:
    """An id as it is compared: trimmed, A to Z in lower case, a UUID in its canonical form (RFC
    9562) whether it came with capitals, in braces, as `urn:uuid:` or without hyphens.

    docs/tables.md says the same in SQL, which knows no other letters without further libraries.
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


def line_ids(digests: Iterable[bytes]) -> list[str]:
    """The ids of statements that have none: UUIDs of the first 16 bytes of their lines' SHA-256."""
    return [f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:32]}" for d in map(bytes.hex, digests)]


STATEMENT_ID = Kind(statement_id)
