"""Which statements void another one."""

from __future__ import annotations

from typing import NamedTuple


class Voided(NamedTuple):
    """A statement that another one voids (xAPI 1.0.3, part 2, section 2.3.2).

    The voiding statement's line from 1, the canonical id that it voids, its own id, and when it
    happened, in milliseconds since 1970.
    """

    number: int
    voided_id: str
    event_id: str
    timestamp_ms: int
