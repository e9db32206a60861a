"""Which statements void another one."""

from __future__ import annotations

from typing import Any, NamedTuple

from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.identity import line_id, statement_id
from xapi_etl_processor.xapi.timestamps import milliseconds

VOIDED = {"http://adlnet.gov/expapi/verbs/voided", "https://adlnet.gov/expapi/verbs/voided"}


class Voided(NamedTuple):
    """A statement that another one voids (xAPI 1.0.3, part 2, section 2.3.2).

    The voiding statement's line from 1, the id that it voids as the column `event_id` holds it, its
    own id, and when it happened, in milliseconds since 1970.
    """

    number: int
    voided_id: str
    event_id: str
    timestamp_ms: int


def voided(statement: Any, line: bytes, number: int, source: Source) -> Voided | None:
    """What a statement voids: None unless its verb says so and its object is a StatementRef.

    `line` is trimmed, and `number` is its number from 1.
    """
    kind = statement.object.objectType
    if statement.verb.id not in VOIDED or not isinstance(kind, str):
        return None
    voided_id = statement_id(statement.object.id)
    if kind.strip().lower() != "statementref" or voided_id is None:
        return None
    event_id = statement_id(statement.id) or line_id(line)
    return Voided(number, voided_id, event_id, _happened_at(statement, source))


def _happened_at(statement: Any, source: Source) -> int:
    """When it happened, by the same rule as the column `timestamp`."""
    for value in (statement.timestamp, statement.stored):
        if (found := milliseconds(value)) is not None:
            return found
    return source.key_timestamp_ms or 0
