"""Which errors a retry can help, which are the request's own fault, and which are poison."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from xapi_etl_processor.base import errors
from xapi_etl_processor.base.clickhouse_errors import meaning, name_in
from xapi_etl_processor.base.errors import BadRequest, ClickHouseError, S3Error, XapiEtlError

RETRY_CAN_HELP = {
    "EventFailed",
    "NothingDone",
    "DeadlinePassed",
    "S3Error",
    "S3Late",
    "ClickHouseUnavailable",
    "ClickHouseBusy",
    "ClickHouseWaking",
    "OutcomeUnknown",
    "LoadOvertaken",
}
POISON = {
    "UnknownPayload",
    "Defect",
    "S3Missing",
    "S3Unusable",
    "S3NotAllowed",
    "S3InvalidName",
}
BAD_REQUESTS = {
    "S3Unordered",
    "BadRequest",
    "UnknownPayload",
    "S3NotAllowed",
    "S3NoSuchBucket",
    "S3BadInventory",
    "S3InvalidName",
}


def below(kind: type[XapiEtlError]) -> Iterator[type[XapiEtlError]]:
    """A class and all those below it."""
    yield kind
    for lower in kind.__subclasses__():
        yield from below(lower)


def test_every_error_says_whether_a_retry_can_help() -> None:
    assert {e.__name__ for e in below(XapiEtlError) if e.retryable} == RETRY_CAN_HELP


def test_only_the_faults_of_a_message_or_its_object_are_poison() -> None:
    assert {e.__name__ for e in below(XapiEtlError) if e.poison} == POISON


def test_what_is_answered_with_400_cannot_be_helped_by_a_retry() -> None:
    assert {e.__name__ for e in below(BadRequest)} == BAD_REQUESTS
    assert not BAD_REQUESTS & RETRY_CAN_HELP


def test_every_exception_of_the_module_is_in_the_one_hierarchy() -> None:
    found = {e for e in vars(errors).values() if isinstance(e, type)}
    assert found == set(below(XapiEtlError))
    assert all(e.__name__.startswith("S3") for e in below(S3Error))
    assert len(set(below(ClickHouseError))) == 7


@pytest.mark.parametrize(
    "text",
    [
        "Table system.processes doesn't exist. (UNKNOWN_TABLE)",
        "Unknown table expression identifier 'system.clusters' in scope SELECT 1",
    ],
)
def test_a_table_of_the_server_that_is_missing_is_not_to_be_migrated(text: str) -> None:
    assert "migrate" not in meaning(60, text).remedy
    ours = "Table xapi.nope does not exist. Maybe you meant system.one?"
    assert "migrate" in meaning(60, ours).remedy


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("DB::Exception: Disk is full. (NOT_ENOUGH_SPACE)", "NOT_ENOUGH_SPACE"),
        ("Of tomorrow. (NEW_ERROR). Stack trace:\n\n0. f (SOME_CALL)", "NEW_ERROR"),
        ("Of Cloud. (NEW_ERROR) (version 24.8.4.13 (official build))", "NEW_ERROR"),
        ("Of Cloud. (NEW_ERROR) (version 24.8.4.13)", "NEW_ERROR"),
        ("Cannot parse 'learner (BOB)' as a number", ""),
        ("", ""),
    ],
)
def test_the_name_of_an_error_is_what_stands_last_in_parentheses(message: str, name: str) -> None:
    assert name_in(message) == name
