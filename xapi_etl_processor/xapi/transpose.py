"""Statements to columns, as ClickHouse stores them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
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
"""A column's values so far, None if there are none at all; and whether some are None, which takes
longer to find out than most conversions."""


_ORDERED = sorted(
    (*STEPS, *SENT), key=lambda column: bool(column.fallback and column.fallback.needs)
)
_MADE_OF_INT: dict[frozenset[type], type] = {frozenset({kind}): kind for kind in (str, float)}


def to_columns(chunk: Chunk) -> dict[str, Values]:
    """A chunk's columns by name, each as long as the chunk.

    A column in which every value is absent is left out; an empty chunk has no columns.
    """
    if not chunk.statements:
        return {}
    by_path = values_by_path(chunk)
    columns: dict[str, Values] = {}
    for column, paths in _plan(tuple(by_path)):
        values, gaps = _from_paths(column, paths, by_path)
        if gaps and column.fallback:
            values, gaps = _with_fallback(values, column.fallback, chunk, columns)
        if values is None:
            continue
        absent = ABSENT[column.name]
        if gaps and absent is not None:
            values = [absent if value is None else value for value in values]
        # Looking at the first value is enough to see that most columns are not empty.
        if values[0] != absent or values.count(absent) != len(values):
            columns[column.name] = values
    for step in STEPS:
        columns.pop(step.name, None)
    return columns


@lru_cache(maxsize=256)
def _plan(present: tuple[Path, ...]) -> list[tuple[Column, list[Path]]]:
    """The columns that can have values where just these paths have some, each with its paths. The
    chunks of a producer have few different ones.
    """
    plan = []
    for column in _ORDERED:
        paths = [path for path in column.paths if path in present]
        if paths or column.fallback:
            plan.append((column, paths))
    return plan


def _from_paths(column: Column, paths: list[Path], by_path: dict[Path, Values]) -> Found:
    """A column's values: each statement's comes from the first of the paths that it has."""
    values: Values | None = None
    gaps = True
    for path in paths:
        more, gaps = converted(by_path[path], column)
        if values is None:
            values = more
        else:
            values = [new if old is None else old for old, new in zip(values, more, strict=True)]
            gaps = gaps and None in values
        if not gaps:
            break
    return values, gaps


def values_by_path(chunk: Chunk) -> dict[Path, Values]:
    """The values of every statement at each path, leaving out what no statement has."""
    # All values of a level are transposed at once: asking each struct for each field costs three
    # times as much.
    found: dict[Path, Values] = {(): chunk.statements}
    # Comparing ends at the first value, while counting would compare them all.
    nothing = (None,) * len(chunk.statements)
    for path, node in STRUCTS.nodes.items():
        structs = found.get(path)
        if structs is None:
            continue
        if structs[0] is node.empty and structs.count(node.empty) == len(structs):
            continue
        columns = zip(*map(astuple, structs), strict=True)
        for below, values in zip(node.paths, columns, strict=True):
            if values != nothing:
                found[below] = values
    return found


def converted(values: Values, column: Column) -> tuple[Values, bool]:
    """Values as ClickHouse stores them, None for those that cannot be used; and if there are such.

    An empty text counts as absent if there is something else to look at, or if the column stores
    NULL for "absent".
    """
    kind = column.kind
    types = set(map(type, values))
    gaps = NoneType in types
    types.discard(NoneType)
    if not types <= kind.exact:
        values, gaps = _as_one_type(values, types, kind, gaps=gaps)
    if kind.fits:
        present = [value for value in values if value is not None] if gaps else values
        if present and not kind.fits(present):
            values = [None if value is None else kind.convert(value) for value in values]
            gaps = None in values
    # Conversions give no empty text.
    if (
        str in kind.exact
        and (len(column.paths) > 1 or column.fallback or ABSENT[column.name] is None)
        and (gaps or not all(values))
    ):
        values, gaps = [value or None for value in values], True
    return values, gaps


def _as_one_type(
    values: Values, types: set[type], kind: Kind, *, gaps: bool
) -> tuple[Values, bool]:
    if kind.at_once and types == {str} and not gaps and (found := kind.at_once(values)):
        return found, False
    own_type = _MADE_OF_INT.get(kind.exact)
    if own_type and types <= {own_type, int}:
        try:
            if not gaps:
                return list(map(own_type, values)), False
            return [None if value is None else own_type(value) for value in values], True
        except OverflowError:
            pass  # Of a number with hundreds of digits; the others are converted one by one.
    exact, convert = {*kind.exact, NoneType}, kind.convert
    # Values of other types may be equal without being the same: 1, 1.0 and true.
    if kind.repeat and types <= {int, str}:
        table = {value: value if type(value) in exact else convert(value) for value in set(values)}
        return [table[value] for value in values], None in table.values()
    values = [value if type(value) in exact else convert(value) for value in values]
    return values, None in values


def _with_fallback(
    values: Values | None, fallback: Fallback, chunk: Chunk, columns: dict[str, Values]
) -> Found:
    if fallback.where and fallback.where not in columns:
        return values, True
    size = len(chunk.statements)
    needed = {name: columns.get(name) or [ABSENT[name]] * size for name in fallback.needs}
    if values is None:
        supplied = fallback.supply(chunk, range(size), **needed)
    else:
        missing = [row for row, value in enumerate(values) if value is None]
        more = iter(fallback.supply(chunk, missing, **needed))
        supplied = [next(more) if value is None else value for value in values]
    return supplied, not fallback.complete and None in supplied
