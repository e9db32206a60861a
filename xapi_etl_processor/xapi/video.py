"""Which statements are about a video."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from msgspec.structs import astuple

from xapi_etl_processor.xapi.paths import CONTEXT, DEFINITION, RESULT, VIDEO
from xapi_etl_processor.xapi.structs import STRUCTS
from xapi_etl_processor.xapi.values import last_segment

_HTTP = ("http", "https")


def _spellings(*iris: str) -> frozenset[str]:
    """The IRIs as producers spell them: with http or https, a trailing slash or none."""
    return frozenset(f"{http}://{iri}{end}" for iri in iris for http in _HTTP for end in ("", "/"))


VERBS = ("https://w3id.org/xapi/video/verbs/", "http://w3id.org/xapi/video/verbs/")
TYPES = _spellings(
    "w3id.org/xapi/video/activity-type/video",
    # The vocabularies name these as exact matches of the profile's own type.
    "activitystrea.ms/schema/1.0/video",
    "w3id.org/xapi/acrossx/activities/video",
)
PROFILE = _spellings("w3id.org/xapi/video")
EXPERIENCED = _spellings("adlnet.gov/expapi/verbs/experienced")
NO_ACTIVITY = {"agent", "group", "statementref", "substatement"}
"""What an object may be instead of an activity (xAPI 1.0.3, part 2, section 2.4.4)."""


class Verdict(NamedTuple):
    """Whether a statement is about a video, and the rule that decided."""

    video: bool
    rule: str


_TYPE = Verdict(True, "the type of its object is a video")
_VERB = Verdict(True, "its verb is one of the Video Profile's")
_CATEGORY = Verdict(True, "a category names the Video Profile")
_EXPERIENCED = Verdict(
    True, "its verb is experienced, and it has an extension of the Video Profile"
)
_NO_ACTIVITY = Verdict(False, "its object is a person, a group or a statement")
_AUDIO_TYPE = Verdict(False, "the type of its object is audio")
_AUDIO_CATEGORY = Verdict(False, "a category names the Audio Profile")
_EXPERIENCED_ANYTHING = Verdict(
    False, "its verb is experienced, without a video type or an extension of the Video Profile"
)
_NOTHING = Verdict(False, "neither object type, verb nor category says that it is about a video")

# A category may be the profile or a version of it (xAPI Profiles, part 2).
_PROFILE = re.compile(r"https?://w3id\.org/xapi/(video|audio)(/v[0-9].*|/?)", re.DOTALL)


def verdict(statement: Any) -> Verdict:
    """Whether verb, object type or category say that a decoded statement is about a video."""
    thing = statement.object
    # The usual answers first: this runs for every statement.
    other = thing.objectType
    if other != "Activity" and isinstance(other, str) and other.strip().lower() in NO_ACTIVITY:
        return _NO_ACTIVITY
    kind = thing.definition.type
    if kind in TYPES:
        about = _TYPE
    elif isinstance(kind, str) and last_segment(kind).lower() == "audio":
        return _AUDIO_TYPE
    elif statement.verb.id.startswith(VERBS):
        about = _VERB
    else:
        about = None
    for activity in statement.context.contextActivities.category or ():
        profile = "video" if activity.id in PROFILE else _profile(activity.id)
        if profile == "audio":
            # The Audio Profile reuses the video verbs.
            return _AUDIO_CATEGORY
        if profile == "video":
            about = about or _CATEGORY
    if about:
        return about
    if statement.verb.id not in EXPERIENCED:
        return _NOTHING
    return _EXPERIENCED if _has_extension(statement) else _EXPERIENCED_ANYTHING


def _profile(iri: object) -> str | None:
    """Which of the two profiles an IRI names: video, audio or neither."""
    found = _PROFILE.fullmatch(iri) if isinstance(iri, str) else None
    return found[1] if found else None


def _has_extension(statement: Any) -> bool:
    """Whether it has an extension of the Video Profile. Pages and quizzes are `experienced` too."""
    nodes = (
        (RESULT, statement.result.extensions),
        (CONTEXT, statement.context.extensions),
        (DEFINITION, statement.object.definition.extensions),
    )
    return any(
        value is not None and below[-1].startswith(VIDEO)
        for path, node in nodes
        for below, value in zip(STRUCTS.nodes[path].paths, astuple(node), strict=True)
    )
