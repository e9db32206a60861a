"""Which statements void another one."""

from __future__ import annotations

from typing import Any, NamedTuple

from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.identity import line_id, statement_id
from xapi_etl_processor.xapi.timestamps import milliseconds

VOIDED = {"http://adlnet.gov/expapi/verbs/voided", "https://adlnet.gov/expapi/verbs/voided"}


class Voided(NamedTuple):
    """A statement that another one voids (xAPI 1.0.3, part 2, section 2.3.2), and that one's line,
    from 1, its `event_id` and its time in milliseconds since 1970.
    """

    number: int
    voided_id: str
    event_id: str
    timestamp_ms: int


def voided(statement: Any, line: bytes, number: int, source: Source) -> Voided | None:
    """What a statement of a trimmed line voids, if its verb and its object say so."""
    kind = statement.object.objectType
    if statement.verb.id not in VOIDED or not isinstance(kind, str):
        return None
    voided_id = statement_id(statement.object.id)
    if kind.strip().lower() != "statementref" or voided_id is None:
        return None
    event_id = statement_id(statement.id) or line_id(line)
    # By the same rule as the column `timestamp`.
    stated, stored = milliseconds(statement.timestamp), milliseconds(statement.stored)
    times = (stated, stored, source.key_timestamp_ms, 0)
    return Voided(number, voided_id, event_id, next(time for time in times if time is not None))
