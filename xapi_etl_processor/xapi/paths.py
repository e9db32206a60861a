"""Where in a statement values stand, and the types of what is there."""

from __future__ import annotations

from typing import Any

import msgspec

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

Scalar = str | int | float | bool | None
"""What a path may lead to: anything in JSON but an object or an array."""


class Definition(msgspec.Struct, frozen=True, gc=False):
    """The part that is read of the definition of an activity in a list."""

    type: Scalar = None


class Activity(msgspec.Struct, frozen=True, gc=False):
    """An element of `contextActivities`."""

    id: Scalar = None
    definition: Definition = Definition()


class Account(msgspec.Struct, frozen=True, gc=False):
    """A member's account."""

    name: Scalar = None
    homePage: Scalar = None  # noqa: N815  # the JSON key


class Member(msgspec.Struct, frozen=True, gc=False):
    """An agent of a Group."""

    account: Account = Account()
    mbox: Scalar = None
    mbox_sha1sum: Scalar = None
    openid: Scalar = None


Activities = tuple[Activity, ...] | None
Members = tuple[Member, ...] | None
Titles = dict[str, str] | str | None

LEAF_TYPES: dict[Path, Any] = {
    VERB_ID: str,
    TITLES: Titles,
    MEMBERS: Members,
    CATEGORY: Activities,
    PARENT: Activities,
    GROUPING: Activities,
    **{(*place, VIDEO + "played-segments"): Scalar | list[Any] for place in PLACES},
}
"""The types at the ends of paths that are not scalars."""


def in_context(vocabulary: str, *names: str) -> tuple[Path, ...]:
    """The paths of a vocabulary's context extensions."""
    return tuple((*CONTEXT, vocabulary + name) for name in names)


def anywhere(vocabulary: str, *names: str) -> tuple[Path, ...]:
    """The paths of a vocabulary's extensions: in the result, the context, or the object."""
    return tuple((*place, vocabulary + name) for place in PLACES for name in names)
