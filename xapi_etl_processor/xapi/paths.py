"""Where in a statement values stand: vocabularies, nodes, and what is at the end of a path."""

from __future__ import annotations

from typing import Any

from xapi_etl_processor.xapi.elements import Activities, Members, Scalar

Path = tuple[str, ...]
"""The JSON keys that lead from the statement to a value."""

VIDEO = "https://w3id.org/xapi/video/extensions/"
OLI = "http://oli.cmu.edu/extensions/"
CMI5 = "https://w3id.org/xapi/cmi5/"
OPENEDX = "https://w3id.org/xapi/openedx/extension/"
TINCAN = "http://id.tincanapi.com/extension/"

RESULT: Path = ("result", "extensions")
CONTEXT: Path = ("context", "extensions")
DEFINITION: Path = ("object", "definition", "extensions")
PLACES = (RESULT, CONTEXT, DEFINITION)
"""Where extensions stand, in the order in which they are tried."""

ACTIVITIES: Path = ("context", "contextActivities")
CATEGORY: Path = (*ACTIVITIES, "category")
PARENT: Path = (*ACTIVITIES, "parent")
GROUPING: Path = (*ACTIVITIES, "grouping")

VERB_ID: Path = ("verb", "id")
OBJECT_TYPE: Path = ("object", "objectType")
ACTIVITY_TYPE: Path = ("object", "definition", "type")
TITLES: Path = ("object", "definition", "name")
MEMBERS: Path = ("actor", "member")

Titles = dict[str, str] | str | None
ScalarOrList = Scalar | list[Any]

LEAF_TYPES: dict[Path, Any] = {
    VERB_ID: str,
    TITLES: Titles,
    MEMBERS: Members,
    CATEGORY: Activities,
    PARENT: Activities,
    GROUPING: Activities,
    **{(*place, VIDEO + "played-segments"): ScalarOrList for place in PLACES},
}
"""The types at the ends of paths that are not scalars."""


def in_context(vocabulary: str, *names: str) -> tuple[Path, ...]:
    """The paths of a vocabulary's context extensions."""
    return tuple((*CONTEXT, vocabulary + name) for name in names)


def anywhere(vocabulary: str, *names: str) -> tuple[Path, ...]:
    """The paths of a vocabulary's extensions: in the result, the context, or the object."""
    return tuple((*place, vocabulary + name) for place in PLACES for name in names)
