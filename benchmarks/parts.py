"""What do many inserts at once do to ClickHouse: parts, merges, and readers?

make bench-parts                          print the table: about ten minutes
make bench-parts PARTS="--seconds 2"      the same, roughly, in three minutes
make bench-parts PARTS=--write            write docs/scaling.md and coefficients.json too

1, 4 and 16 writers insert 10, 1,000 and 20,000 rows at a time, into one month and into 36.
Meanwhile the daily view of another section is read, until merges have ended. Last, a section that
lies in 1, 8, 64 and 256 parts of each month is read, before and after they are merged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import product
from statistics import median, quantiles

from rich.console import Console

from benchmarks import coefficients, markdown
from benchmarks.inserting import Case, Found, Reading, bench
from benchmarks.report import machine
from benchmarks.setting import ROOT
from docs.reference import with_tables

WRITERS, ROWS, MONTHS = (1, 4, 16), (10, 1_000, 20_000), (1, 36)
PARTS = (1, 8, 64, 256)
UNITS = {
    "parts_insert_ms": "ms per insert, beside its parts and rows",
    "parts_part_ms": "ms per part that it makes",
    "parts_row_us": "µs per row",
    "parts_ledger_insert_ms": "ms per insert into the ledger",
    "parts_merge_part_ms": "ms of a merge per part of 10 rows",
    "parts_merge_row_us": "µs of a merge of large parts per row",
    "parts_in_a_merge": "parts that a merge joins",
}
"""What `figures` gives."""

PAGE = ROOT / "docs/scaling.md"
COMMAND = "make bench-parts PARTS=--write"

_WRITING = (
    *("months", "rows per insert", "writers", "rows a second", "ms per insert"),
    *("parts made", "most in a month", "merging ends after, s", "times a row is written"),
    *("reading before, ms", "meanwhile, ms"),
)
_READING = (
    *("parts in a month", "daily view", "count with `FINAL`", "optimized in", "daily view then"),
    "count then",
)


def main() -> int:
    """Measure, print the tables, and write them if asked; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parts",
        description=__doc__.split("\n\n")[0],
        epilog="\n\n".join(__doc__.split("\n\n")[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seconds", type=float, default=10, help="how long each case inserts (%(default)s)"
    )
    parser.add_argument("--write", action="store_true", help="write the page and the coefficients")
    options = parser.parse_args()
    if not 0 < options.seconds <= 600:
        parser.error("--seconds must be more than 0, and at most 600")
    cases = [Case(*one) for one in product(WRITERS, ROWS, MONTHS)]
    results, readings = measured(options.seconds, cases, PARTS)
    tables = {
        "parts-writing": writing(results),
        "parts-reading": reading(readings),
    }
    print("\n".join(tables.values()))
    found = figures(results)
    print(json.dumps(found, indent=2))
    if options.write:
        page = with_tables(
            PAGE.read_text(encoding="utf-8"), {"parts-measured-on": machine(), **tables}, COMMAND
        )
        PAGE.write_text(page, encoding="utf-8")
        coefficients.write(found, UNITS, "bench-parts")
    return 0


def measured(
    seconds: float, cases: Sequence[Case], parts: Sequence[int]
) -> tuple[list[Found], list[Reading]]:
    """What each case found, and how long reading took with each number of parts."""
    results = []
    with Console(stderr=True).status("preparing rows") as status, bench(max(ROWS)) as place:
        for number, case in enumerate(cases, 1):
            status.update(f"{number} of {len(cases)}: {case}")
            results.append(place.run(case, seconds))
        status.update("reading")
        return results, [place.read_parts(number) for number in parts]


def writing(results: Sequence[Found]) -> str:
    """What writers, merges and readers did and felt, as Markdown."""
    rows = [
        (
            *_case(found),
            f"{found.rows_per_second:,.0f}",
            f"{found.insert_ms:,.0f}",
            f"{found.parts:,}",
            f"{found.most_in_month:,}",
            f"{found.merging:.1f}",
            f"{found.written:.1f}",
            *(f"{median(times) * 1000:,.0f}" for times in (found.before, found.during)),
        )
        for found in _ordered(results)
    ]
    return markdown.table(_WRITING, "r", rows)


def reading(readings: Sequence[Reading]) -> str:
    """What readers gain when parts are merged, as Markdown."""
    rows = [
        (
            f"{one.parts:,}",
            *(f"{seconds * 1000:,.0f} ms" for seconds in (one.view, one.final)),
            f"{one.optimizing:.1f} s",
            *(f"{s * 1000:,.0f} ms" for s in (one.view_optimized, one.final_optimized)),
        )
        for one in readings
    ]
    return markdown.table(_READING, "r", rows)


def _ordered(results: Sequence[Found]) -> list[Found]:
    return sorted(results, key=lambda one: (one.case.months, one.case.rows, one.case.writers))


def _case(found: Found) -> tuple[str, str, str]:
    case = found.case
    return f"{case.months}", f"{case.rows:,}", f"{case.writers}"


def figures(results: Sequence[Found]) -> dict[str, float]:
    """What a model of a backfill needs to know of the server, from the same measurements.

    They are lower quartiles, which leave out what else the machine did.
    """
    one_writer = [one for one in results if one.case.writers == 1]
    alone = {(one.case.rows, one.case.months): _quick(one) for one in one_writer}
    few, many = min(ROWS), max(ROWS)
    row_us = (alone[many, 1] - alone[few, 1]) / (many - few) * 1000
    part_ms = median((alone[rows, 36] - alone[rows, 1]) / (min(rows, 36) - 1) for rows in ROWS)
    ledger = [took for one in one_writer for took in one.ledger]
    merges = {name: sum(one.events[name] for one in results) for name in results[0].events}
    small = [one.events for one in results if one.case.rows == few]
    small_ms = sum(e["MergeTotalMilliseconds"] for e in small)
    part = small_ms / sum(e["MergeSourceParts"] for e in small)
    large = [one.events for one in results if one.case.rows == many and one.case.months == 1]
    busy = sum(e["MergeTotalMilliseconds"] for e in large)
    return {
        "parts_insert_ms": alone[few, 1] - few * row_us / 1000 - part_ms,
        "parts_part_ms": part_ms,
        "parts_row_us": row_us,
        "parts_ledger_insert_ms": quantiles(ledger)[0] * 1000,
        "parts_merge_part_ms": part,
        "parts_merge_row_us": busy * 1000 / sum(e["MergedRows"] for e in large),
        "parts_in_a_merge": merges["MergeSourceParts"] / merges["Merge"],
    }


def _quick(found: Found) -> float:
    """The lower quartile of a case's inserts, in ms."""
    return quantiles(found.inserts)[0] * 1000 if len(found.inserts) > 1 else found.insert_ms


if __name__ == "__main__":
    sys.exit(main())
