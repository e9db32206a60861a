"""Which values of a video statement the columns take, and which they leave, and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from xapi_etl_processor.xapi.chunk import Chunk
from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.derived import CMI5_PROGRESS
from xapi_etl_processor.xapi.loose_json import any_json, with_dots
from xapi_etl_processor.xapi.paths import (
    ACTIVITY_TYPE,
    CATEGORY,
    CONTEXT,
    MEMBERS,
    OBJECT_TYPE,
    PLACES,
    RESULT,
    Path,
)
from xapi_etl_processor.xapi.segments import no_pairs
from xapi_etl_processor.xapi.structs import STRUCTS
from xapi_etl_processor.xapi.transpose import converted, values_by_path
from xapi_etl_processor.xapi.values import text

_BY_THE_RULE = {OBJECT_TYPE, ACTIVITY_TYPE, CATEGORY}
"""What decides whether a statement is about a video, and is in no column of its own."""

_NO_COLUMN = "no column reads it"
_EMPTY = "it is empty"
_UNREADABLE = (
    "what no column reads of this line cannot be shown: it is nested too deeply, or no JSON"
)
_READERS = (*SENT, *STEPS)
_STEPS = {step.name for step in STEPS}


class Unused(NamedTuple):
    """A value that is in the statement and in no column, and the column that refused it, if any."""

    path: Path
    value: Any
    reason: str
    column: str = ""

    @property
    def is_extension(self) -> bool:
        """Whether it stands among the extensions."""
        return self.path[:-1] in PLACES


def taken(chunk: Chunk, columns: dict[str, Sequence[Any]]) -> tuple[dict[str, Path], list[Unused]]:
    """The path that each column's value came from, in a chunk of one statement whose columns are
    these, and the values that no column took.
    """
    choice = _choice(values_by_path(chunk))
    for column in SENT:
        if column.name in columns and column.name not in choice.paths and column.fallback:
            _note_step(column.name, column.fallback.needs, columns[column.name][0], choice)
    paths = {name: path for name, path in choice.paths.items() if name in columns}
    try:
        found = any_json(with_dots(chunk.lines[0]))
    except (ValueError, RecursionError):
        return paths, [Unused((), None, _UNREADABLE)]
    used = {*paths.values(), *_BY_THE_RULE}
    unused = []
    for path, value, is_read in _leaves(found, ()):
        if path == paths.get("video_played_segments") and (left := no_pairs(value)):
            unused.append(
                Unused(path, left[0], "it is no pair of seconds", "video_played_segments")
            )
        if value is None or path in used or _by_a_fallback(path, value, paths, columns):
            continue
        if not is_read or value in ("", [], {}):
            unused.append(Unused(path, value, _EMPTY if is_read else _NO_COLUMN))
        else:
            unused.append(_why(path, value, choice, paths))
    return paths, unused


class _Choice(NamedTuple):
    """By column, the path whose value it takes and that value; by path, the column that refuses its
    value; and the paths whose values have a shape that can be read.
    """

    paths: dict[str, Path]
    values: dict[str, Any]
    refused: dict[Path, str]
    readable: frozenset[Path]


def _choice(by_path: dict[Path, Sequence[Any]]) -> _Choice:
    choice = _Choice({}, {}, {}, frozenset(by_path))
    for column in _READERS:
        for path in filter(by_path.__contains__, column.paths):
            values, _ = converted(by_path[path], column)
            if values[0] is None:
                choice.refused.setdefault(path, column.name)
            elif column.name not in choice.paths:
                choice.paths[column.name], choice.values[column.name] = path, values[0]
    return choice


def _note_step(name: str, needs: Sequence[str], value: Any, choice: _Choice) -> None:
    """Note the path of the step that gave a column its value, if one did."""
    for step in needs:
        if step in _STEPS and step in choice.paths and choice.values[step] == value:
            choice.paths[name] = choice.paths[step]
            return


def _leaves(node: dict[str, Any], path: Path) -> Iterator[tuple[Path, Any, bool]]:
    """Each value at the end of a path that some column reads, or beside such a path; and whether
    it is one that is read.
    """
    read = set(STRUCTS.nodes[path].paths)
    for key, value in node.items():
        here = (*path, key)
        if here not in STRUCTS.nodes:
            yield here, value, here in read
        elif isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value, True


def _why(path: Path, value: Any, choice: _Choice, paths: dict[str, Path]) -> Unused:
    """Why a value that could be read is in no column."""
    readers = [column for column in _READERS if path in column.paths]
    stored = _stored(readers[0].name) if readers else ""
    if path not in choice.readable or path in STRUCTS.nodes:
        return Unused(path, value, f"{_kind(value)} cannot stand here", stored)
    if path in choice.refused:
        (reader,) = (one for one in readers if one.name == choice.refused[path])
        # A list that lacks something, such as a course, is no mistake.
        column = _stored(reader.name) if isinstance(value, str | int | float) else ""
        return Unused(path, value, f"it is not {reader.kind.wanted}", column)
    if path == MEMBERS:
        reason = "only the one member of a group without an id is read"
    elif (first := paths.get(stored)) and first != path:
        reason = f"{dotted(first)} comes first"
    else:
        reason = f"{stored} needs nothing of it"
    return Unused(path, value, reason)


def _by_a_fallback(
    path: Path, value: Any, paths: dict[str, Path], columns: dict[str, Sequence[Any]]
) -> bool:
    """Whether a fallback took a value to which no path leads."""
    if path == MEMBERS:
        return any(name in columns and name not in paths for name in ("user_id", "home_page"))
    if path == (*RESULT, CMI5_PROGRESS):
        return "video_progress" in columns and "video_progress" not in paths
    return (
        path[:-1] == CONTEXT
        and path[-1].endswith("/session-id")
        and "session_id" not in paths
        and "session_id" in columns
        and text(value) == columns["session_id"][0]
    )


def _stored(name: str) -> str:
    """The stored column for which a column is read: a step is a part of another."""
    if name in _STEPS:
        return next(
            column.name for column in SENT if column.fallback and name in column.fallback.needs
        )
    return name


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"


def dotted(path: Path) -> str:
    """A path as people write it."""
    return ".".join(path)
