"""The generated tables of docs/: columns, environment variables, ClickHouse's error codes.

python -m docs.reference    writes them into the pages
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path as FilePath

from xapi_etl_processor.base import clickhouse_errors
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.xapi.column import Column
from xapi_etl_processor.xapi.columns import COLUMNS, STEPS
from xapi_etl_processor.xapi.paths import (
    CONTEXT,
    DEFINITION,
    OLI,
    OPENEDX,
    RESULT,
    TINCAN,
    VIDEO,
    Path,
)

_VOCABULARIES = {VIDEO: "video", OLI: "OLI", OPENEDX: "Open edX", TINCAN: "Tin Can"}
_PLACES = {RESULT: "result", CONTEXT: "context", DEFINITION: "object"}


def sql_columns() -> str:
    """The columns of `video_events`, one a line, as CREATE TABLE takes them."""
    return ",\n".join(f"    {_sql(column)}" for column in COLUMNS)


def columns_table() -> str:
    """Name, type, meaning and sources of every column, as Markdown."""
    head = "| column | type | what it is | from, first that is present |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{c.name}` | {c.type} | {c.comment} | {_sources(c)} |\n" for c in COLUMNS
    )


def environment_table() -> str:
    """Every environment variable, its default and its meaning, as Markdown."""
    lines = ["| variable | default | what it is |\n|---|---|---|\n"]
    for item in fields(Settings):
        name, about = item.metadata["env"], item.metadata["about"]
        lines.append(f"| `{name}` | {_default(item.default)} | {about} |\n")
    return "".join(lines)


def _default(value: object) -> str:
    if value is MISSING:
        return "required"
    if value is False:
        return "`false`"
    return f"`{value}`" if value else "none"


def errors_table() -> str:
    """ClickHouse's error codes by what follows from them and what to do, as Markdown."""
    errors = [(code, found, "") for code, found in clickhouse_errors.CODES.items()]
    errors += [
        (241, clickhouse_errors.QUERY_MEMORY, " (of the query)"),
        (252, clickhouse_errors.MERGES_LAG, " (parts)"),
        (252, clickhouse_errors.TOO_MANY_PARTITIONS, " (partitions)"),
    ]
    rows: dict[tuple[str, str], list[str]] = {}
    for code, found, which in sorted(errors, key=lambda error: error[0]):
        rows.setdefault(found[1:], []).append(f"{code} {found.name}{which}")
    rows.setdefault(clickhouse_errors.UNLISTED[1:], []).append("any other")
    return "| code | verdict | what to do |\n|---|---|---|\n" + "".join(
        f"| {', '.join(codes)} | {verdict} | {remedy} |\n"
        for (verdict, remedy), codes in rows.items()
    )


Tables = Mapping[str, Callable[[], str]]

PAGES: dict[str, Tables] = {
    "docs/configuration.md": {"environment": environment_table},
    "docs/tables.md": {"columns": columns_table},
    "docs/operations.md": {"clickhouse-errors": errors_table},
}
"""Which tables stand in which page, by the name in the comments around them."""


def outdated(root: FilePath) -> list[str]:
    """The pages below `root` whose tables are not those of the code."""
    return [
        page for page, tables in PAGES.items() if _read(root, page) != _made(root, page, tables)
    ]


def _read(root: FilePath, page: str) -> str:
    return (root / page).read_text(encoding="utf-8")


def _made(root: FilePath, page: str, tables: Tables) -> str:
    return with_tables(_read(root, page), {name: table() for name, table in tables.items()})


def with_tables(page: str, tables: dict[str, str], command: str = "make docs") -> str:
    """The page with each table put between the two comments that name it, the first with the
    command that makes the table; raises ValueError.
    """
    for name, table in tables.items():
        before, begin, rest = page.partition(f"<!-- {name}: {command} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not begin or not end:
            raise ValueError(f"the page has no comments around the table {name!r}")
        page = before + begin + table + end + after
    return page


def _sql(column: Column) -> str:
    default = f" DEFAULT {column.default}" if column.default else ""
    comment = column.comment.replace("'", "''")
    return f"`{column.name}` {column.type}{default} COMMENT '{comment}'"


def _sources(column: Column) -> str:
    """Paths as a person would write them, with the places of one extension together, unless they
    are all places.
    """
    named: dict[str, list[str]] = {}
    for path in _paths(column):
        extension, place = _named(path)
        named.setdefault(extension, []).append(place)
    return "; ".join(
        f"{extension} ({', '.join(places)})"
        if all(places) and places != list(_PLACES.values())
        else extension
        for extension, places in named.items()
    )


def _paths(column: Column) -> tuple[Path, ...]:
    """The column's paths, and those of the columns that it is made of alone."""
    needs = column.fallback.needs if column.fallback else ()
    shown = STEPS if column.paths else (*STEPS, *COLUMNS)
    return column.paths + tuple(
        path for needed in shown if needed.name in needs for path in needed.paths
    )


def _named(path: Path) -> tuple[str, str]:
    place = _PLACES.get(path[:-1], "")
    name = path[-1]
    for prefix, vocabulary in _VOCABULARIES.items():
        if name.startswith(prefix):
            return f"{vocabulary} `{name.removeprefix(prefix)}`", place
    return f"`{'.'.join(path)}`", ""


def main() -> None:
    """Write the tables into the pages."""
    root = FilePath(__file__).parents[1]
    for page, tables in PAGES.items():
        (root / page).write_text(_made(root, page, tables), encoding="utf-8")


if __name__ == "__main__":
    main()
