"""Sections that are numbers and sections that are texts: in requests, answers and rows."""

from __future__ import annotations

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
