"""Statements to columns, as ClickHouse stores them."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import TopologicalSorter
from types import NoneType
from typing import Any

from msgspec.structs import astuple

from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.column import Column, Fallback
from xapi_etl_processor.xapi.columns import ABSENT, SENT, STEPS
from xapi_etl_processor.xapi.paths import Path
from xapi_etl_processor.xapi.structs import STRUCTS
from xapi_etl_processor.xapi.values import Kind

Values = Sequence[Any]
"""One value for each statement of a chunk; None for "absent"."""


Found = tuple[Values | None, bool]
"""A column's values so far, None if there are none at all; and whether some are None. Asking every
time would cost more than most conversions: comparing a text with None is slow.
"""


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
    by_path = values_by_path(chunk)
    columns: dict[str, Values] = {}
    for column in _ORDERED:
        found = _from_paths(column, by_path)
        if column.fallback:
            found = _with_fallback(found, column.fallback, chunk, columns)
        values = _without_absent(found, column)
        if values is not None:
            columns[column.name] = values
    for step in _STEPS:
        columns.pop(step, None)
    return columns


def _from_paths(column: Column, by_path: dict[Path, Values]) -> Found:
    """One column's values, for each statement from its first path that is present."""
    values: Values | None = None
    gaps = True
    for path in column.paths:
        found = by_path.get(path)
        if found is None:
            continue
        if values is None:
            values, gaps = converted(found, column)
        else:
            more, gaps = converted(found, column)
            values = _first_present(values, more)
            gaps = gaps and None in values
        if not gaps:
            break
    return values, gaps


def values_by_path(chunk: Chunk) -> dict[Path, Values]:
    """The values of every statement at each path, leaving out what no statement has.

    All values of a level are taken and transposed at once, which costs a third of asking each
    struct for each field.
    """
    found: dict[Path, Values] = {(): chunk.statements}
    # Comparing ends at the first value, while counting would compare them all.
    nothing = (None,) * len(chunk.statements)
    for path, node in STRUCTS.nodes.items():
        structs = found.get(path)
        if structs is None or _are_all(node.empty, structs):
            continue
        columns = zip(*map(astuple, structs), strict=True)
        for below, values in zip(node.paths, columns, strict=True):
            if values != nothing:
                found[below] = values
    return found


def _are_all(empty: Any, structs: Values) -> bool:
    return structs[0] is empty and structs.count(empty) == len(structs)


def converted(values: Values, column: Column) -> tuple[Values, bool]:
    """Values as ClickHouse stores them, None for those that cannot be used; and whether there are
    such.

    An empty text counts as absent if there is something else to look at, or if the column stores
    NULL for "absent".
    """
    kind = column.kind
    types = set(map(type, values))
    gaps = NoneType in types
    types.discard(NoneType)
    if not types <= kind.exact:
        values, gaps = _each_converted(values, types, kind)
    if kind.fits:
        present = [value for value in values if value is not None] if gaps else values
        if present and not kind.fits(present):
            values = [None if value is None else kind.convert(value) for value in values]
            gaps = None in values
    empty_is_absent = len(column.paths) > 1 or column.fallback or column.absent is None
    # Conversions give no empty text.
    if str in kind.exact and empty_is_absent and (gaps or not all(values)):
        values, gaps = [value or None for value in values], True
    return values, gaps


def _each_converted(values: Values, types: set[type], kind: Kind) -> tuple[Values, bool]:
    exact, convert = {*kind.exact, NoneType}, kind.convert
    # Values of other types may be equal without being the same: 1, 1.0 and true.
    if kind.repeat and types <= {int, str}:
        table = {value: value if type(value) in exact else convert(value) for value in set(values)}
        return [table[value] for value in values], None in table.values()
    values = [value if type(value) in exact else convert(value) for value in values]
    return values, None in values


def _first_present(values: Values, more: Values) -> Values:
    return [other if value is None else value for value, other in zip(values, more, strict=True)]


def _with_fallback(
    found: Found, fallback: Fallback, chunk: Chunk, columns: dict[str, Values]
) -> Found:
    """The values, with the fallback's where they are None."""
    values, gaps = found
    if not gaps or (fallback.where and fallback.where not in columns):
        return found
    size = len(chunk.statements)
    missing: Sequence[int] = range(size)
    if values is not None:
        missing = [row for row, value in enumerate(values) if value is None]
    needed = {name: columns.get(name) or _all_absent(name, size) for name in fallback.needs}
    supplied = fallback.supply(chunk, missing, **needed)
    if values is not None:
        filled = list(values)
        for row, value in zip(missing, supplied, strict=True):
            filled[row] = value
        supplied = filled
    return supplied, not fallback.complete and None in supplied


def _all_absent(name: str, size: int) -> Values:
    return [ABSENT[name]] * size


def _without_absent(found: Found, column: Column) -> Values | None:
    """The values with the column's own "absent" in place of None; None if all are absent."""
    values, gaps = found
    if values is None:
        return None
    absent = column.absent
    if absent is not None and gaps:
        values = [absent if value is None else value for value in values]
    # Looking at the first value is enough to see that most columns are not empty.
    return None if values[0] == absent and values.count(absent) == len(values) else values
