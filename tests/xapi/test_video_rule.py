"""Which statements are about a video: types, verbs, categories, evidence; what decides against."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.rows import (
    ADL,
    OLI,
    PLACES,
    PROFILE,
    SOURCE,
    VERBS,
    VIDEO,
    VIDEO_TYPE,
    encoded,
    minimal,
    row_of,
    with_values,
)
from xapi_etl_processor.xapi.parse import parse

AUDIO = "https://w3id.org/xapi/audio"
AUDIO_TYPE = AUDIO + "/activity-type/audio"
PAGE = "http://activitystrea.ms/schema/1.0/page"


def is_video(statement: Any) -> bool:
    counts = parse([encoded(statement)], 1, SOURCE).counts
    assert (counts.lines, counts.rejected, counts.blank) == (1, 0, 0)
    return counts.video == 1


def about(
    verb: str, object_type: Any = None, category: Any = None, extensions: Any = None
) -> dict[str, Any]:
    return with_values(
        minimal(verb={"id": verb}),
        (("object", "definition", "type"), object_type),
        (("context", "contextActivities", "category"), category),
        (("result", "extensions"), extensions or {}),
    )


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(
    "iri",
    [
        "w3id.org/xapi/video/activity-type/video",
        "activitystrea.ms/schema/1.0/video",
        "w3id.org/xapi/acrossx/activities/video",
    ],
)
def test_any_verb_on_a_video_is_a_video_statement(scheme: str, iri: str, slash: str) -> None:
    kind = f"{scheme}://{iri}{slash}"
    for verb in (ADL + "completed", ADL + "experienced"):
        assert is_video(about(verb, kind))


@pytest.mark.parametrize(
    "kind",
    [
        *(VIDEO_TYPE + "s", VIDEO_TYPE + "/short", "https://example.org/video", "video", None, 5),
        "http://adlnet.gov/expapi/activities/media",
    ],
)
def test_other_types_say_nothing_about_a_video(kind: Any) -> None:
    assert not is_video(about(ADL + "completed", kind))
    assert not is_video(about(ADL + "experienced", kind))
    assert is_video(about(VERBS + "played", kind))


@pytest.mark.parametrize(
    "category",
    [
        *(PROFILE, PROFILE + "/", "http://w3id.org/xapi/video"),
        *(PROFILE + "/v1.0.3", PROFILE + "/v1.0", PROFILE + "/v2.0/"),
    ],
)
def test_a_category_that_names_the_profile_or_a_version_makes_a_video_statement(
    category: str,
) -> None:
    assert is_video(about(ADL + "completed", PAGE, [{"id": category}]))
    assert is_video(
        about(ADL + "completed", None, [{"id": "http://example.org/c"}, {"id": category}])
    )
    assert is_video(about(ADL + "completed", None, {"id": category}))  # xAPI 0.9: not in a list


@pytest.mark.parametrize(
    "category",
    [
        *(PROFILE + "s", PROFILE + "/verbs/played", PROFILE + "/version", "xapi/video", None, 5),
        *("http://h5p.org/libraries/H5P.InteractiveVideo-1.22", "https://w3id.org/xapi/lms"),
        "http://id.tincanapi.com/recipe/video/base/1",
    ],
)
def test_other_categories_say_nothing_about_a_video(category: Any) -> None:
    assert not is_video(about(ADL + "interacted", None, [{"id": category}]))


def test_the_verbs_of_the_profile_make_a_video_statement() -> None:
    assert is_video(about(VERBS + "played"))
    assert is_video(about(VERBS.replace("https", "http") + "seeked", "http://example.org/other"))
    assert not is_video(about("http://activitystrea.ms/schema/1.0/play"))
    assert not is_video(about("http://id.tincanapi.com/verb/paused"))
    assert not is_video(about("https://w3id.org/xapi/video/verb/played"))


@pytest.mark.parametrize(
    "audio",
    [AUDIO_TYPE, AUDIO_TYPE + "/", "http://activitystrea.ms/schema/1.0/audio"]
    + ["https://w3id.org/xapi/acrossx/activities/audio", "http://example.org/types#Audio"],
)
def test_an_audio_type_decides_against(audio: str) -> None:
    assert not is_video(about(VERBS + "played", audio))
    assert not is_video(about(VERBS + "played", audio, [{"id": PROFILE}]))
    assert not is_video(about(ADL + "experienced", audio, None, {VIDEO + "time": 3}))


@pytest.mark.parametrize(
    "category", [AUDIO, AUDIO + "/", "http://w3id.org/xapi/audio", AUDIO + "/v1.0"]
)
@pytest.mark.parametrize("beside", [[], [{"id": PROFILE}]])
def test_a_category_that_names_the_audio_profile_decides_against(
    category: str, beside: list[Any]
) -> None:
    for categories in ([{"id": category}, *beside], [*beside, {"id": category}]):
        assert not is_video(about(VERBS + "played", None, categories))
        assert not is_video(about(ADL + "completed", VIDEO_TYPE, categories))


@pytest.mark.parametrize("place", PLACES)
def test_experienced_counts_with_an_extension_of_the_profile(place: tuple[str, ...]) -> None:
    for verb in (ADL + "experienced", "https://adlnet.gov/expapi/verbs/experienced/"):
        statement = about(verb, PAGE)
        assert not is_video(statement)
        for name in ("time", "length", "cc-enabled", "speed"):
            assert is_video(with_values(statement, ((*place, "extensions", VIDEO + name), 0)))
        assert is_video(
            with_values(statement, (("context", "extensions", VIDEO + "session-id"), "s"))
        )


def test_an_extension_that_is_absent_or_with_another_verb_makes_no_video_statement() -> None:
    for value in (None, {}, {"a": 1}):
        assert not is_video(about(ADL + "experienced", None, None, {VIDEO + "time": value})), value
    assert not is_video(about(ADL + "experienced", None, None, {OLI + "page_id": 7}))
    assert not is_video(about(ADL + "completed", None, None, {VIDEO + "time": 3}))
    # What is not about a video needs no id of its object.
    assert not is_video(minimal(verb={"id": ADL + "completed"}, object={}))


@pytest.mark.parametrize(
    "object_type", ["Agent", "Group", "StatementRef", "SubStatement", "agent", " statementref "]
)
def test_only_an_activity_is_a_video(object_type: str) -> None:
    for statement in (about(VERBS + "played"), about(ADL + "commented", VIDEO_TYPE)):
        assert is_video(statement)
        assert not is_video(with_values(statement, (("object", "objectType"), object_type)))


@pytest.mark.parametrize("object_type", ["Activity", "activity", None, "", 5, ["Agent"], {}])
def test_an_object_without_a_usable_type_is_an_activity(object_type: Any) -> None:
    statement = with_values(about(VERBS + "played"), (("object", "objectType"), object_type))
    assert row_of(statement)["video_url"] == "v"
