"""The structs that statements are decoded into, built from the column table. A node that is not
there is one shared empty struct, so that a path can be walked without checks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from xapi_etl_processor.xapi.columns import SENT, STEPS
from xapi_etl_processor.xapi.paths import (
    ACTIVITY_TYPE,
    CATEGORY,
    LEAF_TYPES,
    MEMBERS,
    OBJECT_TYPE,
    OLI,
    RESULT,
    TITLES,
    VERB_ID,
    VIDEO,
    Path,
    Scalar,
    in_context,
)

REQUIRED: tuple[Path, ...] = (("actor",), ("verb",), VERB_ID, ("object",))
"""Without these a line is no statement (xAPI 1.0.3, part 2, section 2.3)."""


class Node(NamedTuple):
    """One level of a statement: the paths of its fields, in the struct's order, and the struct that
    stands for a missing one; None where the level is required.
    """

    paths: tuple[Path, ...]
    empty: msgspec.Struct | None


class Structs(NamedTuple):
    """The struct of a whole statement, and its levels by path, each after those above it."""

    statement: type[msgspec.Struct]
    nodes: dict[Path, Node]


def build_structs(paths: Iterable[Path]) -> Structs:
    """Structs with a field for every step of the paths."""
    tree: dict[str, Any] = {}
    for path in paths:
        level = tree
        for key in path[:-1]:
            level = level.setdefault(key, {})
        level[path[-1]] = path
    nodes: dict[Path, Node] = {}
    statement = _struct("Statement", tree, (), nodes)
    return Structs(statement, dict(reversed(nodes.items())))


def _struct(
    name: str, tree: dict[str, Any], path: Path, nodes: dict[Path, Node]
) -> type[msgspec.Struct]:
    """The struct of one level, noted in `nodes` with those below it."""
    fields: list[Any] = []
    for key, below in tree.items():
        here = (*path, key)
        if isinstance(below, dict):
            kind: Any = _struct(_attribute(key), below, here, nodes)
            default = nodes[here].empty
        else:
            kind, default = LEAF_TYPES.get(here, Scalar), None
        options = {} if here in REQUIRED else {"default": default}
        fields.append((_attribute(key), kind, msgspec.field(name=key, **options)))
    struct = msgspec.defstruct(name, fields, frozen=True, gc=False, eq=False, kw_only=True)
    required = path == () or path in REQUIRED
    nodes[path] = Node(tuple((*path, key) for key in tree), None if required else struct())
    return struct


def _attribute(key: str) -> str:
    """A Python name for a JSON key, in which IRIs stay recognisable."""
    return re.sub(r"\W", "_", key)


_USUAL: tuple[Path, ...] = (
    ("actor", "account", "homePage"),
    ("actor", "account", "name"),
    VERB_ID,
    ("object", "id"),
    TITLES,
    ACTIVITY_TYPE,
    OBJECT_TYPE,
    *((*RESULT, VIDEO + name) for name in ("played-segments", "progress", "time")),
    CATEGORY,
    *in_context(OLI, "page_attempt_number", "page_attempt_guid", "section_id", "project_id"),
    *in_context(OLI, "publication_id", "resource_id", "content_element_id"),
    *in_context(VIDEO, "length"),
)
"""What the learning platform sends, in its order. Msgspec looks for a key from where it found the
last one: statements in this order are decoded in 5 % less time, and others as before."""

STRUCTS = build_structs(
    [*_USUAL, *(path for column in (*SENT, *STEPS) for path in column.paths), MEMBERS]
)
"""The structs of the column table, of what tells a video statement, and of a Group's members."""
