"""Which statements are about a video."""

from __future__ import annotations

from typing import Any

VERBS = "https://w3id.org/xapi/video/verbs/"
TYPES = {"https://w3id.org/xapi/video/activity-type/video"}
PROFILE = "https://w3id.org/xapi/video"
EXPERIENCED = "http://adlnet.gov/expapi/verbs/experienced"
EXPERIENCED_TYPES = {*TYPES, "http://activitystrea.ms/schema/1.0/video", None, ""}
"""Object types with which the older `experienced` is about a video; the profile names the second
one as an exact match of its own type."""


def is_video(statement: Any) -> bool:
    """Whether verb, object type or category say that a decoded statement is about a video."""
    verb = statement.verb.id
    if verb.startswith(VERBS):
        return True
    kind = statement.object.definition.type
    if kind in TYPES:
        return True
    for activity in statement.context.contextActivities.category or ():
        if isinstance(activity.id, str) and _is_profile(activity.id):
            return True
    return verb == EXPERIENCED and kind in EXPERIENCED_TYPES


def _is_profile(iri: str) -> bool:
    """Whether it is the profile or a version of it (xAPI Profiles: a category may be either)."""
    return iri.rstrip("/") == PROFILE or iri.startswith(PROFILE + "/v1.")
