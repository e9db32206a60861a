"""What stands for a learner: pseudonyms and hashes, all HMAC-SHA-256 (RFC 2104, FIPS 198-1)."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from hashlib import sha1
from hmac import digest

PSEUDONYM = "hmac:"
"""How a pseudonym begins, before 64 hexadecimal digits."""

_ANY_CAPITALS = re.compile(
    r"mailto:.*|[0-9a-f]{40}|[^ @]+@[^ @]+", re.IGNORECASE | re.DOTALL | re.ASCII
)
_UNQUOTED = re.compile(rb'(?:[^"\\]|\\.)+', re.DOTALL)
_NUMBERED = re.compile(rb'"name"\s*:\s*(-?[0-9][0-9.eE+-]*)')
_BETWEEN = re.compile(rb'"|[\s,;]+')


def pseudonym(user_id: str, key: bytes) -> str:
    """What is stored instead of a user id: always the same for the same id and key."""
    return PSEUDONYM + digest(key, b"user\0" + user_id.encode(), "sha256").hex()


def comparable(user_id: str) -> str:
    """A user id as learners are compared by it: mail addresses, with `mailto:` or without, and
    SHA-1 in lower case (A to Z, as ClickHouse's `lower` has it), all others as they are.
    """
    if not has_any_capitals(user_id):
        return user_id
    return user_id.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def has_any_capitals(user_id: str) -> bool:
    """Whether a user id is the same in any mix of capital and small letters."""
    return _ANY_CAPITALS.fullmatch(user_id) is not None


def fingerprint(user_id: str, home_page: str | None, key: bytes) -> str:
    """The hash of a learner, 64 hexadecimal digits; without a home page, of the id on any."""
    return digest(key, json.dumps([comparable(user_id), home_page]).encode(), "sha256").hex()


def name_hash(user_id: str, key: bytes) -> str:
    """The hash of a user id alone, which is all that can be found in a line that is no JSON."""
    return digest(key, json.dumps([comparable(user_id)]).encode(), "sha256").hex()


def key_id(key: bytes) -> str:
    """What tells one key from another without giving it away: 16 hexadecimal digits."""
    return digest(key, b"key id", "sha256").hex()[:16]


def spellings(mbox: str) -> list[str]:
    """The user ids that a mail address can have: as mbox, or as the name of an account, without
    `mailto:` too; and as mbox_sha1sum, which is the SHA-1 of the whole `mailto:` IRI (xAPI 1.0.3,
    part 2, section 2.4.2.3), or, as some have it, of the address; all also in lower case.
    """
    address = mbox[len("mailto:") :] if mbox.lower().startswith("mailto:") else mbox
    given = mbox if address != mbox else f"mailto:{address}"
    spelled = dict.fromkeys(each for text in (given, address) for each in (text, comparable(text)))
    hashed = (sha1(each.encode(), usedforsecurity=False).hexdigest() for each in spelled)
    return [*spelled, *hashed]


def texts_in(line: bytes) -> set[str]:
    """What could be a user id in a line that is no statement: its texts in quotes, as JSON reads
    them, its words, and a number that is a name. The line may be cut anywhere.
    """
    line = line.replace(b"\0", b"")  # It may be UTF-16.
    pieces = {
        *line.split(b'"'),
        *_UNQUOTED.findall(line),
        *_BETWEEN.split(line),
        *_NUMBERED.findall(line),
    }
    found = set()
    for piece in pieces:
        text = piece.decode(errors="replace")
        found.add(text)
        if "\\" in text:
            with suppress(ValueError):
                found.add(json.loads(f'"{text}"'))
    return found
