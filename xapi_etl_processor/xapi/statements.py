"""Lines to statements to columns. Pure: knows no S3 and no ClickHouse client.

The structs that a statement is decoded into are made here from the column table: a missing node is
one shared empty struct, so that a level of all statements is transposed without a check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from math import isfinite
from types import NoneType
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import astuple

from xapi_etl_processor.xapi.columns import (
    ACTIVITIES,
    CATEGORY,
    LEAF_TYPES,
    OBJECT_TYPE,
    SENT,
    VERB_ID,
    Activities,
    Chunk,
    Column,
    LanguageMap,
    Path,
    Rows,
    Source,
)
from xapi_etl_processor.xapi.lines import MAX_LINE_BYTES
from xapi_etl_processor.xapi.values import Activity, Scalar, any_json

WHITESPACE = b" \t\r\n"
"""What may stand around a JSON text (RFC 8259); what a line is trimmed of."""

VIDEO_VERBS = "https://w3id.org/xapi/video/verbs/"
VIDEO_TYPES = {"https://w3id.org/xapi/video/activity-type/video"}
VIDEO_PROFILE = "https://w3id.org/xapi/video"
EXPERIENCED = "http://adlnet.gov/expapi/verbs/experienced"
NOT_ANOTHER_TYPE = {*VIDEO_TYPES, "http://activitystrea.ms/schema/1.0/video", None, ""}
"""Object types with which a legacy `experienced` is a video's; the profile names the second an
exact match of its own."""

REQUIRED: tuple[Path, ...] = (("actor",), ("verb",), VERB_ID, ("object",))
"""Without these a line is no statement (xAPI 1.0.3, part 2, section 2.3)."""


MAX_DEPTH = 128
"""Objects and arrays around one value at the most: a statement has six. Ours; deeper, it would be
the Python version that decides what can be read."""

_TOO_DEEP = f"nested more than {MAX_DEPTH} deep"
# Text without an end reaches the line's, so that no quote in it is looked at again.
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


class Rejected(Exception):
    """The line is no statement; the text says why, one of a few, and holds nothing of the line."""


class RejectedLine(NamedTuple):
    """A line that was refused: physical number from 1, reason, the line itself."""

    number: int
    reason: str
    line: bytes


@dataclass
class Counts:
    """What became of lines; `lines == video + other + blank + rejected`, always."""

    lines: int = 0
    video: int = 0
    other: int = 0
    blank: int = 0
    rejected: int = 0

    def add(self, more: Counts) -> None:
        """Count what another part counted."""
        self.lines += more.lines
        self.video += more.video
        self.other += more.other
        self.blank += more.blank
        self.rejected += more.rejected

    @property
    def add_up(self) -> bool:
        """Whether every line became exactly one thing."""
        return self.lines == self.video + self.other + self.blank + self.rejected


@dataclass
class Parsed:
    """What some lines of one object became."""

    counts: Counts
    chunk: Chunk
    rejected: list[RejectedLine] = field(default_factory=list)


def parse(
    lines: list[bytes], first: int, source: Source, max_line_bytes: int = MAX_LINE_BYTES
) -> Parsed:
    """Statements of consecutive lines; first is the number of the first. No line raises."""
    chunk = Chunk(source)
    rejected: list[RejectedLine] = []
    blank = other = 0
    for number, raw in enumerate(lines, first):
        line = raw.strip(WHITESPACE)
        if not line and len(raw) <= max_line_bytes:
            blank += 1
            continue
        try:
            if len(raw.removesuffix(b"\r")) > max_line_bytes:
                raise Rejected(f"line is longer than {max_line_bytes} bytes")
            statement = decode(line)
        except Rejected as error:
            rejected.append(RejectedLine(number, str(error), line))
            continue
        if is_video(statement):
            chunk.statements.append(statement)
            chunk.lines.append(line)
            chunk.numbers.append(number)
        else:
            other += 1
    chunk.digests = [sha256(line).digest() for line in chunk.lines]
    counts = Counts(len(lines), len(chunk.statements), other, blank, len(rejected))
    return Parsed(counts, chunk, rejected)


def decode(line: bytes) -> Any:
    """The statement of one trimmed line; raises Rejected where it is none.

    A field of the wrong shape loses that field, not the statement: the typed decode refuses such
    a line, and the slower, forgiving way takes it.
    """
    # Msgspec does not look inside text that no field wants.
    if not line.isascii():
        _check_utf8(line)
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH:
        _check_depth(line)
    try:
        return _decode(line)
    except msgspec.ValidationError:
        return _forgiving_decode(line)
    except msgspec.DecodeError as error:
        raise Rejected(_not_json(error)) from None


def is_video(statement: Any) -> bool:
    """Whether verb, object type or category say that the statement is about a video."""
    verb = statement.verb.id
    if verb.startswith(VIDEO_VERBS):
        return True
    kind = statement.object.definition.type
    if kind in VIDEO_TYPES:
        return True
    for activity in statement.context.contextActivities.category or ():
        if isinstance(activity.id, str) and _is_video_profile(activity.id):
            return True
    return verb == EXPERIENCED and kind in NOT_ANOTHER_TYPE


def _is_video_profile(iri: str) -> bool:
    """The profile, or one of its versions (xAPI Profiles: a category may name either)."""
    return iri.rstrip("/") == VIDEO_PROFILE or iri.startswith(VIDEO_PROFILE + "/v1.")


def to_columns(chunk: Chunk) -> dict[str, Sequence[Any]]:
    """A chunk's columns by name, each as long as the chunk.

    A column that holds nothing but what stands for "absent" is left out; of an empty chunk, all.
    """
    if not chunk.statements:
        return {}
    seen: _Seen = {}
    for column in SENT:
        values = _column(column, chunk, seen)
        if values is not None:
            chunk.columns[column.name] = values
    return chunk.columns


_Values = Sequence[Any]
_Seen = dict[Path, dict[str, _Values]]


def _column(column: Column, chunk: Chunk, seen: _Seen) -> _Values | None:
    """One column of a chunk, from the first source that is present row by row; None if empty."""
    values: _Values | None = None
    for path in column.paths:
        found = _below(path[:-1], chunk, seen).get(path[-1])
        if found is None:
            continue
        found = _converted(found, column)
        values = found if values is None else _first_present(values, found)
        if None not in values:
            break
    if column.fallback:
        values = _with_fallback(values, column.fallback, chunk)
    if values is None:
        return None
    absent = column.absent
    if absent is not None and None in values:
        values = [absent if value is None else value for value in values]
    # The first value tells at once of most columns that they are not empty.
    return None if values[0] == absent and values.count(absent) == len(values) else values


def _below(node: Path, chunk: Chunk, seen: _Seen) -> dict[str, _Values]:
    """What stands under a node of every statement, by JSON key, without what no statement has.

    All values of a level are taken and transposed at once, which costs a third of asking each
    struct for each field.
    """
    if node not in seen:
        seen[node] = {}
        found = _below(node[:-1], chunk, seen).get(node[-1], ()) if node else chunk.statements
        empty = _EMPTY_NODES.get(node)
        if found and not (found[0] is empty and found.count(empty) == len(found)):
            columns = zip(*map(astuple, found), strict=True)
            seen[node] = {
                key: values
                for key, values in zip(_KEYS[node], columns, strict=True)
                if values.count(None) < len(values)
            }
    return seen[node]


def _converted(values: _Values, column: Column) -> _Values:
    """Values as ClickHouse stores them, None where one is of no use.

    An empty text counts as absent, so that the next source is asked; where there is no next one
    and the column's own "absent" is the empty text, it is that already.
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


def _with_fallback(
    values: _Values | None, fallback: Callable[[Chunk, Rows], list[Any]], chunk: Chunk
) -> _Values:
    if values is None:
        return fallback(chunk, range(len(chunk.statements)))
    if None in values:
        values = list(values)
        missing = [row for row, value in enumerate(values) if value is None]
        for row, value in zip(missing, fallback(chunk, missing), strict=True):
            values[row] = value
    return values


def _first_present(values: _Values, more: _Values) -> _Values:
    return [other if value is None else value for value, other in zip(values, more, strict=True)]


def _check_utf8(line: bytes) -> None:
    try:
        line.decode()
    except UnicodeDecodeError:
        raise Rejected("not UTF-8") from None


def _check_depth(line: bytes) -> None:
    """Raises Rejected for a line that is nested deeper than MAX_DEPTH: each turn takes away what
    is innermost, so that megabytes of brackets cost no more than other megabytes.
    """
    left = _TEXT.sub(b"", line).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        outer = left.replace(b"[]", b"")
        if len(outer) == len(left):
            break
        left = outer
    if left.count(b"[") > MAX_DEPTH or b"[]" in left:
        raise Rejected(_TOO_DEEP)


def _not_json(error: msgspec.DecodeError) -> str:
    """The decoder's words without the position, so that lines of one fault have one reason."""
    return "not JSON: " + str(error).removeprefix("JSON is malformed: ").partition(" (byte")[0]


def _forgiving_decode(line: bytes) -> Any:
    try:
        found = any_json(line)
    except msgspec.DecodeError as error:
        raise Rejected(_not_json(error)) from None
    except ValueError:
        raise Rejected("not JSON") from None
    if not isinstance(found, dict):
        raise Rejected("not a JSON object")
    return _forgive(found, Statement, ())


def _forgive(found: dict[str, Any], struct: type[msgspec.Struct], path: Path) -> Any:
    """The struct made of what fits; raises Rejected where a part that must be there does not."""
    kept: dict[str, Any] = {}
    for item in msgspec.structs.fields(struct):
        here = (*path, item.encode_name)
        value = found.get(item.encode_name)
        if isinstance(item.type, type) and issubclass(item.type, msgspec.Struct):
            if isinstance(value, dict):
                kept[item.name] = _forgive(value, item.type, here)
        elif (fitting := _fitting(value, item.type)) is not None:
            kept[item.name] = fitting
        if item.required and item.name not in kept:
            raise Rejected(f"statement has no usable {'.'.join(here)}")
    return struct(**kept)


def _fitting(value: Any, wanted: Any) -> Any:
    """The part of a leaf that has the wanted type, or None."""
    if wanted == Activities:
        # xAPI 0.9 wrote a single activity without the list.
        activities = value if isinstance(value, list) else [value]
        return tuple(_forgive(a, Activity, ACTIVITIES) for a in activities if isinstance(a, dict))
    if wanted == LanguageMap:
        pairs = value.items() if isinstance(value, dict) else ()
        return {tag: text for tag, text in pairs if isinstance(text, str)}
    if isinstance(value, float) and not isfinite(value):
        return None
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError:
        return None


# --- The structs and their readers, made once from the column table ---


def _attribute(key: str) -> str:
    """A Python name for a JSON key; IRIs stay recognisable."""
    return re.sub(r"\W", "_", key)


def _tree(paths: list[Path]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path in paths:
        node = root
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = path
    return root


def _struct(name: str, tree: dict[str, Any], path: Path) -> type[msgspec.Struct]:
    fields: list[Any] = []
    _KEYS[path] = tuple(tree)
    for key, below in tree.items():
        here = (*path, key)
        if isinstance(below, dict):
            struct = _struct(_attribute(key), below, here)
            entry: tuple[Any, Any] = (struct, {})
            if here not in REQUIRED:
                _EMPTY_NODES[here] = struct()
                entry = (struct, {"default": _EMPTY_NODES[here]})
        elif here in REQUIRED:
            entry = (LEAF_TYPES[here], {})
        else:
            entry = (LEAF_TYPES.get(here, Scalar), {"default": None})
        fields.append((_attribute(key), entry[0], msgspec.field(name=key, **entry[1])))
    return msgspec.defstruct(name, fields, frozen=True, gc=False, eq=False, kw_only=True)


_EMPTY_NODES: dict[Path, Any] = {}
_KEYS: dict[Path, tuple[str, ...]] = {}
_PATHS: list[Path] = [path for column in SENT for path in column.paths]
Statement = _struct("Statement", _tree([*_PATHS, OBJECT_TYPE, CATEGORY]), ())
_decode = msgspec.json.Decoder(Statement).decode
