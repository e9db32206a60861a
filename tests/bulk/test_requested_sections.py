"""Sections that are numbers and sections that are texts: in requests, answers and rows."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.covered import found
from tests.support.samples import notification, video

STORED = "SELECT section_id, section FROM video_statements"


@pytest.mark.slow
def test_a_section_that_is_no_number_is_loaded_and_stored_as_text(
    bucket: Bucket, invoke: Invoke, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_each("section/101/video/c.jsonl")
    sections = ["BIO101", "Médecine 1+2", "20x1", "1e3", "a" * 256]
    for number, section in enumerate(sections):
        bucket.put(f"section/{section}/video/a.jsonl", video(number))
        bucket.put_each(f"section/{section}x/video/b.jsonl")
        answer = invoke({"section_id": section})
        assert (answer["section_id"], answer["s3_prefix"]) == (section, f"section/{section}/")
        assert answer["files_processed"] == 1
    assert sorted(ask(STORED)) == sorted([0, section] for section in sections)
    # Sections are also found below other folders.
    monkeypatch.setenv("S3_XAPI_PREFIX", "/")
    keys = ["archive/section/BIO/a.jsonl", "archive/section/MAT/b.jsonl", "archive/BIO/c.jsonl"]
    bucket.put_each(*keys)
    assert found(invoke, section_id="BIO", s3_prefix="archive") == keys[:1]


@pytest.mark.slow
def test_a_number_may_be_sent_as_text_and_with_zeros(
    bucket: Bucket, invoke: Invoke, ask: Ask
) -> None:
    bucket.put_each("section/7/video/a.jsonl", "section/007/video/b.jsonl")
    for number in (7, "7", "007"):
        assert found(invoke, section_id=number) == ["section/7/video/a.jsonl"]
    # A folder with zeros has the same section, but another name.
    zeros = {"section_id": 7, "s3_prefix": "section/007/"}
    assert found(invoke, **zeros) == ["section/007/video/b.jsonl"]
    assert invoke(zeros)["section_id"] == 7
    assert ask(STORED) == [[7, "7"]]


@pytest.mark.check("S14")
def test_what_cannot_be_a_section_is_answered_with_400(invoke: Invoke) -> None:
    requests: list[tuple[dict[str, Any], str]] = [
        ({"section_id": ""}, "section_id is ''"),
        ({"section_id": "BIO/101"}, "section_id is 'BIO/101'"),
        ({"section_id": "BIO\n101"}, "section_id is"),
        ({"section_id": "\ud800"}, "section_id is"),
        # Cut at 80 characters, of which one is the quotation mark.
        ({"section_id": "a" * 257}, f"section_id is '{'a' * 79}...: "),
        ({"section_id": -1}, "section_id is -1"),
        ({"section_id": 2**64}, "section_id is 18446744073709551616"),
        ({"section_id": True}, "section_id is True"),
        ({"section_id": 1.5}, "section_id is 1.5"),
        ({"section_id": [1, None]}, "section_id is None"),
        ({"section_id": {"id": 1}}, "section_id is an object"),
        ({"categories": []}, "categories is"),
        ({"categories": ["a/b"]}, "categories is"),
        ({"section_id": [1, 2], "s3_prefix": "section/3/"}, "but section_id is 1, 2"),
        ({"section_id": 1, "s3_prefix": "section/2/video"}, "s3_prefix belongs to section 2"),
        ({"section_id": "BIO", "s3_prefix": "section/MAT/"}, "s3_prefix belongs to section MAT"),
    ]
    for request, named in requests:
        answer = invoke(request)
        assert (answer.status, named in answer["error"]) == (400, True), request


@pytest.mark.slow
@pytest.mark.usefixtures("logged_to_standard_output")
def test_an_events_answer_and_log_name_a_section_of_text(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put_each("section/BIO101/video/a.jsonl", "section/BIO101/video/b.jsonl")
    keys = ("section/BIO101/video/a.jsonl", "section/BIO101/video/b.jsonl")
    assert invoke(notification(bucket.name, *keys))["section_id"] == "BIO101"
    assert '"section_id":"BIO101"' in capfd.readouterr().out
    bucket.put_each("section/MAT/video/a.jsonl")
    both = notification(bucket.name, keys[0], "section/MAT/video/a.jsonl")
    assert invoke(both)["section_id"] is None
