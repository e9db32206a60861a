"""The column table written out: as the CREATE TABLE's columns, and as the README's data dictionary.

`python -m xapi_etl_processor.dictionary` prints both.
"""

from __future__ import annotations

from .columns import COLUMNS, CONTEXT, DEFINITION, OLI, RESULT, VIDEO, Column, Path

_PLACES = {RESULT: "result", CONTEXT: "context", DEFINITION: "object"}


def sql_columns() -> str:
    """The columns of `video_events`, one a line, as CREATE TABLE takes them."""
    return ",\n".join(f"    {_sql(column)}" for column in COLUMNS)


def markdown() -> str:
    """A table with name, type, meaning and sources of every column."""
    head = "| column | type | what it is | from, first that is present |\n|---|---|---|---|\n"
    return head + "".join(
        f"| `{c.name}` | {c.type} | {c.comment} | {_sources(c)} |\n" for c in COLUMNS
    )


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
    print(sql_columns())
    print()
    print(markdown())
