"""What `make bench-parts` makes of its measurements, and that what it inserts is stored."""

from __future__ import annotations

import sys
from itertools import count, islice
from pathlib import Path

import pytest

from benchmarks import inserting, parts
from benchmarks.inserting import Bench, Block, Case, Found, Reading
from docs.reference import with_tables
from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask
from xapi_etl_processor.base.config import Settings

EVENTS = {
    "MergeTreeDataWriterBlocks": 8,
    "Merge": 2,
    "MergeSourceParts": 10,
    "MergedRows": 400,
    "MergedUncompressedBytes": 4000,
    "MergeTotalMilliseconds": 50,
}


def found(case: Case, ms: float) -> Found:
    """Four inserts of that time, in a second."""
    return Found(
        case,
        seconds=1.0,
        inserts=[ms / 1000] * 4,
        ledger=[0.002] * 4,
        most_in_month=3,
        before=[0.1],
        during=[0.1, 0.3],
        events=EVENTS,
    )


def test_coefficients_are_solved_from_the_inserts_of_one_writer() -> None:
    """5 ms an insert, 2 ms a month, 10 µs a row; the other writers' inserts do not count."""
    results = [
        found(Case(writers, rows, months), writers * (5 + 2 * min(rows, months) + rows / 100))
        for writers in (1, 4)
        for rows in (10, 1_000, 20_000)
        for months in (1, 36)
    ]
    made = parts.figures(results)
    assert made.keys() == parts.UNITS.keys()
    assert made["parts_insert_ms"] == pytest.approx(5)
    assert (made["parts_part_ms"], made["parts_row_us"]) == pytest.approx((2, 10))
    assert made["parts_ledger_insert_ms"] == pytest.approx(2)
    # 50 ms for 10 parts; 400 rows in 50 ms.
    assert (made["parts_merge_part_ms"], made["parts_merge_row_us"]) == pytest.approx((5, 125))
    assert made["parts_in_a_merge"] == 5


def test_a_line_of_each_table() -> None:
    one = found(Case(1, 100, 36), 50)
    # 400 rows were inserted, and 400 merged.
    assert parts.writing([one]).splitlines()[-1] == (
        "| 36 | 100 | 1 | 400 | 50 | 4 | 3 | 0.0 | 2.0 | 100 | 200 |"
    )
    read = parts.reading([Reading(8, 0.5, 0.25, 2.0, 0.4, 0.1)])
    assert read.splitlines()[-1] == "| 8 | 500 ms | 250 ms | 2.0 s | 400 ms | 100 ms |"


def test_the_page_has_a_place_for_each_table() -> None:
    names = ("parts-measured-on", "parts-writing", "parts-reading")
    page = with_tables(parts.PAGE.read_text(), dict.fromkeys(names, "here\n"), parts.COMMAND)
    assert page.count("here\n") == len(names)


def test_statements_get_ids_of_their_own_and_stay_as_they_are_otherwise() -> None:
    ids = b"".join(b"$" + b"%036d" % number for number in range(3))
    block = Block(b"\x02\x03\x08event_id\x06String" + ids + b"\x01a\x06Stringrest", 3)
    made = block.with_ids(count())
    assert made.startswith(b"\x02\x03\x08event_id\x06String$")
    assert made.endswith(b"\x01a\x06Stringrest")
    assert len(made) == len(b"\x02\x03\x08event_id\x06String" + ids + b"\x01a\x06Stringrest")
    numbers = count()
    again = {block.with_ids(numbers) for _ in range(3)}
    assert len(again) == 3
    assert next(islice(numbers, 0, None)) == 9


@pytest.mark.slow
def test_every_row_that_writers_inserted_is_there(
    watching: Settings,
    clickhouse: ClickHouseServer,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inserting, "BASE_ROWS", 100)
    monkeypatch.setattr(inserting, "READS", 1)
    done = Bench(clickhouse, watching, tmp_path, 20).run(Case(2, 20, 36), 0.3)
    assert ask("SELECT count() FROM video_events") == [[100 + 20 * len(done.inserts)]]
    # Twenty of the 36 months, a part for each.
    assert done.parts == 20 * len(done.inserts)
    assert done.during


def test_the_command_has_help_and_refuses_a_time_that_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*options: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["parts", *options])
        with pytest.raises(SystemExit) as ended:
            parts.main()
        return ended.value.code, *capsys.readouterr()

    assert "make bench-parts PARTS=--write" in run("--help")[1]
    code, said, complained = run("--seconds", "0")
    assert (code, said) == (2, "")
    assert "--seconds must be more than 0" in complained
