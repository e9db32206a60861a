"""Bulk requests that can never work are answered with 400 and the reason."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.conftest import Invoke


def _token(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode()


NO_QUEUE = 'engine is "queue", but BACKFILL_QUEUE_URL is not set: it is the output'
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"start_date": "2024-02-30"}, "start_date"),
    ({"end_date": "31.1.2024"}, "end_date"),
    ({"start_date": 20240101}, "start_date"),
    ({"start_date": "2024-02-01", "end_date": "2024-01-31"}, "start_date is after end_date"),
    ({"s3_prefix": 5}, "s3_prefix"),
    ({"mode": "bulk", "dry_run": "false"}, "dry_run"),
    ({"mode": "bulk", "force_reprocess": 1}, "force_reprocess"),
    ({"mode": "bulk", "sektion": 5}, "sektion"),
    ({"continuation_token": "nonsense"}, "continuation_token"),
    ({"continuation_token": _token(b"[" * 100_000)}, "continuation_token"),
    ({"continuation_token": _token(b'{"after": "\\ud800"}')}, "continuation_token"),
    ({"s3_prefix": "\ud800"}, "s3_prefix"),
    ({"mode": "bulk", "\ud800": 1}, "unknown parameters"),
    ({"mode": "bulk", "bucket": "no-such-bucket-here"}, "not a bucket of bundles"),
    ({"s3_prefix": "archive/"}, "not in the folder of the bundles, section/"),
    ({"mode": "dryrun", "section_id": 1}, "mode is 'dryrun'"),
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
    ({"engine": "queue"}, NO_QUEUE),
    ({"engine": "queue", "dry_run": True}, NO_QUEUE),
    ({"engine": "spark"}, 'engine is \'spark\': use "function" or "queue"'),
    ({"engine": True}, "engine is True: use"),
    ({"engine": ["queue"]}, "engine is a list: use"),
    ({"engine": "queue", "verify": True}, 'engine "queue" does not go with verify'),
    ({"content": True}, "content needs"),
    ({"repair": True}, "repair needs"),
    ({"min_age_minutes": 5}, "min_age_minutes needs"),
    ({"continue": True}, "continue needs"),
    ({"verify": True, "dry_run": True}, "dry_run does not go with verify"),
    ({"verify": True, "force_reprocess": True}, "force_reprocess does not go with verify"),
    ({"verify": True, "replace": True}, "replace with verify needs"),
    ({"verify": True, "min_age_minutes": "5"}, "min_age_minutes is '5'"),
    ({"verify": True, "min_age_minutes": -1}, "min_age_minutes is -1"),
    ({"verify": "yes"}, "verify is 'yes'"),
]


@pytest.mark.check("S14")
def test_a_request_that_can_never_work_is_answered_with_400_and_the_reason(invoke: Invoke) -> None:
    for request, said in REFUSED:
        answer = invoke(request)
        assert (answer.status, answer["success"]) == (400, False), request
        assert said in answer["error"], request
