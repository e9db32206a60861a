"""The section of a statement: as a number, and as text also where it is no number."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.rows import OLI, SOURCE, minimal, row_of, with_values


def section(sent: Any, in_key: str = "9") -> tuple[int, str]:
    statement = with_values(minimal(), (("context", "extensions", OLI + "section_id"), sent))
    row = row_of(statement, SOURCE._replace(section=in_key))
    return row["section_id"], row["section"]


_NUMBERS = [
    *((2001, "2001"), ("2001", "2001"), (" 2001 ", "2001"), (2001.0, "2001"), ("2001.0", "2001")),
    *(("007", "7"), ("+7", "7"), (1, "1"), (2**64 - 1, "18446744073709551615")),
]


@pytest.mark.parametrize(("sent", "text"), _NUMBERS)
def test_a_section_that_is_a_number_is_in_both_columns(sent: Any, text: str) -> None:
    assert section(sent) == (int(text), text)
    assert section(None, str(sent)) == (int(text), text)


@pytest.mark.parametrize(
    "name", ["BIO101", "2001a", "course-v1:edX+DemoX+Demo", "3e1", "nan", "化学", "1 2", "a" * 256]
)
def test_a_section_that_is_no_number_is_kept_as_text(name: str) -> None:
    assert section(name) == (0, name)
    assert section(f" {name}\t") == (0, name)
    assert section(None, name) == (0, name)


@pytest.mark.parametrize(
    "sent",
    [None, 0, "0", 0.0, "0.0", "000", -1, "-1", 20.5, "20.5", 2**64, str(2**64), "1" * 40]
    + ["", "  ", True, False, [2001], {"id": 2001}, "x" * 257],
)
def test_what_is_no_section_yields_to_the_objects_key(sent: Any) -> None:
    assert section(sent) == (9, "9")
    assert section(sent, "BIO101") == (0, "BIO101")
    assert section(sent, "") == (0, "")
    if isinstance(sent, str):
        assert section(None, sent) == (0, "")
