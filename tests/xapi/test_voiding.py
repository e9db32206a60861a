"""Statements that void another one: they are counted as others, and say what they void."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest

from tests.support import samples
from tests.support.rows import ADL, NOON, SOURCE, VERBS, JsonObject, encoded
from tests.support.samples import event_id
from xapi_etl_processor.xapi.parse import Parsed, parse
from xapi_etl_processor.xapi.voiding import Voided

VOIDED_ID = event_id(0xACAF)


def voiding(**more: Any) -> JsonObject:
    return samples.voiding(0xACAF, **more)


def parsed(*statements: Any) -> Parsed:
    return parse([encoded(statement) for statement in statements], 1, SOURCE)


def test_its_ids_and_its_time_are_made_as_those_of_rows_are() -> None:
    bare, upper = VOIDED_ID.replace("-", ""), VOIDED_ID.upper()
    for spelling in (upper, "{" + VOIDED_ID + "}", "urn:uuid:" + VOIDED_ID, bare):
        thing = {"objectType": "statementRef", "id": f" {spelling}"}
        found = parsed(voiding(object=thing, id=spelling)).voided
        assert found == [Voided(1, VOIDED_ID, VOIDED_ID, NOON)], spelling
    statement = voiding(id=None)
    (found_one,) = parsed(statement).voided
    assert found_one.event_id == str(UUID(bytes=sha256(encoded(statement)).digest()[:16]))
    late, untimed = voiding(timestamp="x", stored="2024-01-01T12:00:00Z"), voiding(timestamp=None)
    times = [one.timestamp_ms for one in parsed(late, untimed).voided]
    assert times == [NOON, SOURCE.key_timestamp_ms]
    nowhere = SOURCE._replace(key_timestamp_ms=None)
    assert parse([encoded(untimed)], 1, nowhere).voided[0].timestamp_ms == 0


@pytest.mark.parametrize(
    "changed",
    [
        {"verb": {"id": ADL + "commented"}},
        {"verb": {"id": VERBS + "played"}},
        {"object": {"id": VOIDED_ID}},
        {"object": {"objectType": "Activity", "id": VOIDED_ID}},
        {"object": {"objectType": "StatementRef"}},
        {"object": {"objectType": "StatementRef", "id": " "}},
        {"object": {"objectType": "StatementRef", "id": [VOIDED_ID]}},
    ],
)
def test_other_statements_void_nothing(changed: JsonObject) -> None:
    found = parsed(voiding(**changed))
    assert found.voided == []
    assert found.counts.lines == found.counts.other + found.counts.video == 1
