"""Which errors are the request's own fault, and which are poison."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from xapi_etl_processor.base import errors
from xapi_etl_processor.base.clickhouse_errors import meaning, name_in
from xapi_etl_processor.base.errors import BadRequest, S3Error, XapiEtlError

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
    "S3InvalidName",
}


def below(kind: type[XapiEtlError]) -> Iterator[type[XapiEtlError]]:
    """A class and all those below it."""
    yield kind
    for lower in kind.__subclasses__():
        yield from below(lower)


def names(kinds: Iterable[type[XapiEtlError]]) -> set[str]:
    return {kind.__name__ for kind in kinds}


def test_every_error_says_whose_fault_it_is() -> None:
    every = set(below(XapiEtlError))
    assert {e for e in vars(errors).values() if isinstance(e, type)} == every
    # Only the faults of a message or its object are poison.
    assert names(e for e in every if e.poison) == POISON
    # These are answered with 400.
    assert names(below(BadRequest)) == BAD_REQUESTS
    assert all(name.startswith("S3") for name in names(below(S3Error)))


def test_a_table_of_the_server_that_is_missing_is_not_to_be_migrated() -> None:
    for text in (
        "Table system.processes doesn't exist. (UNKNOWN_TABLE)",
        "Unknown table expression identifier 'system.clusters' in scope SELECT 1",
    ):
        assert "migrate" not in meaning(60, text).remedy, text
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
