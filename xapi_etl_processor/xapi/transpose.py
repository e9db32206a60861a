"""Statements to columns, as ClickHouse stores them."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from types import NoneType
from typing import Any

from msgspec.structs import astuple

from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.columns import ABSENT, SENT, STEPS, Column, Path
from xapi_etl_processor.xapi.structs import STRUCTS

Values = Sequence[Any]
"""One value for each statement of a chunk; None for "absent"."""

_Seen = dict[Path, dict[str, Values]]


def in_order(columns: Sequence[Column]) -> tuple[Column, ...]:
    """The columns in an order in which each comes after those that its fallback needs.

    Raises KeyError if one needs a column that is not there, and CycleError if two need each other.
    """
    by_name = {column.name: column for column in columns}
    needs = {column.name: column.fallback.needs if column.fallback else () for column in columns}
    return tuple(by_name[name] for name in TopologicalSorter(needs).static_order())


_ORDERED = in_order((*STEPS, *SENT))
_STEPS = [column.name for column in STEPS]


def to_columns(chunk: Chunk) -> dict[str, Values]:
    """A chunk's columns by name, each as long as the chunk.

    A column in which every value is absent is left out; an empty chunk has no columns.
    """
    if not chunk.statements:
        return {}
    seen: _Seen = {}
    columns: dict[str, Values] = {}
    for column in _ORDERED:
        values = _from_paths(column, chunk, seen)
        if column.fallback:
            values = _with_fallback(values, column, chunk, columns)
        values = _without_absent(values, column)
        if values is not None:
            columns[column.name] = values
    for step in _STEPS:
        columns.pop(step, None)
    return columns


def _from_paths(column: Column, chunk: Chunk, seen: _Seen) -> Values | None:
    """One column's values, for each statement from its first path that is present; None if no
    statement has any.
    """
    values: Values | None = None
    for path in column.paths:
        found = _fields_under(path[:-1], chunk, seen).get(path[-1])
        if found is None:
            continue
        found = _converted(found, column)
        values = found if values is None else _first_present(values, found)
        if None not in values:
            break
    return values


def _fields_under(node: Path, chunk: Chunk, seen: _Seen) -> dict[str, Values]:
    """The values under a node of every statement, by JSON key, leaving out what no statement has.

    All values of a level are taken and transposed at once, which costs a third of asking each
    struct for each field.
    """
    if node not in seen:
        seen[node] = {}
        keys, empty = STRUCTS.nodes[node]
        if node:
            found = _fields_under(node[:-1], chunk, seen).get(node[-1], ())
        else:
            found = chunk.statements
        if found and not (found[0] is empty and found.count(empty) == len(found)):
            columns = zip(*map(astuple, found), strict=True)
            seen[node] = {
                key: values
                for key, values in zip(keys, columns, strict=True)
                if values.count(None) < len(values)
            }
    return seen[node]


def _converted(values: Values, column: Column) -> Values:
    """Values as ClickHouse stores them, None for those that cannot be used.

    An empty text counts as absent if there is another path to look at, or if the column stores
    NULL for "absent".
    """
    kind = column.kind
    types = set(map(type, values))
    types.discard(NoneType)
    if not types <= kind.exact:
        exact, convert = {*kind.exact, NoneType}, kind.convert
        values = [value if type(value) in exact else convert(value) for value in values]
    if not kind.fits(values):
        return [None if value is None else kind.convert(value) for value in values]
    if str in types and (len(column.paths) > 1 or column.absent is None) and "" in values:
        return [value or None for value in values]
    return values


def _first_present(values: Values, more: Values) -> Values:
    return [other if value is None else value for value, other in zip(values, more, strict=True)]


def _with_fallback(
    values: Values | None, column: Column, chunk: Chunk, columns: dict[str, Values]
) -> Values:
    """The values, with the fallback's where they are None."""
    fallback = column.fallback
    assert fallback  # noqa: S101  # for mypy
    size = len(chunk.statements)
    if values is None:
        missing: Sequence[int] = range(size)
    elif None in values:
        missing = [row for row, value in enumerate(values) if value is None]
    else:
        return values
    needed = {name: columns.get(name, _all_absent(name, size)) for name in fallback.needs}
    supplied = fallback.supply(chunk, missing, **needed)
    if values is None:
        return supplied
    filled = list(values)
    for row, value in zip(missing, supplied, strict=True):
        filled[row] = value
    return filled


def _all_absent(name: str, size: int) -> Values:
    return [ABSENT[name]] * size


def _without_absent(values: Values | None, column: Column) -> Values | None:
    """The values with the column's own "absent" in place of None; None if all are absent."""
    if values is None:
        return None
    absent = column.absent
    if absent is not None and None in values:
        values = [absent if value is None else value for value in values]
    # Looking at the first value is enough to see that most columns are not empty.
    return None if values[0] == absent and values.count(absent) == len(values) else values
