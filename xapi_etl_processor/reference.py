"""The column table and the settings written out: CREATE TABLE's columns, the README's tables.

python -m xapi_etl_processor.reference README.md    write the tables between their markers
"""

from __future__ import annotations

import sys
from dataclasses import MISSING, fields
from pathlib import Path as FilePath

from xapi_etl_processor.clickhouse_errors import refusals_table
from xapi_etl_processor.config import Settings
from xapi_etl_processor.xapi.columns import (
    COLUMNS,
    CONTEXT,
    DEFINITION,
    OLI,
    RESULT,
    VIDEO,
    Column,
    Path,
)

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
        default = "required" if item.default is MISSING else f"`{item.default}`"
        default = {"``": "none", "`False`": "`false`"}.get(default, default)
        lines.append(f"| `{item.metadata['env']}` | {default} | {item.metadata['about']} |\n")
    return "".join(lines)


def rewritten(readme: str) -> str:
    """The README with its generated tables as they should be."""
    tables = {
        "columns": columns_table(),
        "environment": environment_table(),
        "refusals": refusals_table(),
    }
    return with_tables(readme, tables)


def with_tables(page: str, tables: dict[str, str]) -> str:
    """The page with each table between the two comments that name it; raises ValueError."""
    for name, table in tables.items():
        before, begin, rest = page.partition(f"<!-- {name}: make docs -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not begin or not end:
            raise ValueError(f"the page does not say where the table of {name} stands")
        page = before + begin + table + end + after
    return page


def _sql(column: Column) -> str:
    default = f" DEFAULT {column.default}" if column.default else ""
    comment = column.comment.replace("'", "''")
    return f"`{column.name}` {column.type}{default} COMMENT '{comment}'"


def _sources(column: Column) -> str:
    """Paths as a person would say them, places of one extension together."""
    said: dict[str, list[str]] = {}
    for path in column.paths:
        extension, place = _said(path)
        said.setdefault(extension, []).append(place)
    return "; ".join(
        f"{extension} ({', '.join(places)})" if all(places) else extension
        for extension, places in said.items()
    )


def _said(path: Path) -> tuple[str, str]:
    place = _PLACES.get(path[:-1], "")
    name = path[-1]
    for prefix, vocabulary in ((VIDEO, "video"), (OLI, "OLI")):
        if name.startswith(prefix):
            return f"{vocabulary} `{name.removeprefix(prefix)}`", place
    return f"`{'.'.join(path)}`", ""


if __name__ == "__main__":
    file = FilePath(sys.argv[1])
    file.write_text(rewritten(file.read_text()))
