"""The command invoke: payloads through the handler, and what their answers mean to a script."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.conftest import Bucket
from tests.support.samples import notification, sqs, video
from xapi_etl_processor.cli import main

pytestmark = pytest.mark.usefixtures("own_stream", "settings")

Printed = pytest.CaptureFixture[str]
KEY = "section/1/video/a.jsonl"


def invoke(payload: Any) -> int:
    return main(["invoke", payload if isinstance(payload, str) else json.dumps(payload)])


def answer(capsys: Printed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_answer_is_shown_with_its_status_and_its_body_as_json(
    bucket: Bucket, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, video(1))
    assert invoke({"bucket": bucket.name, "key": KEY}) == 0
    found = answer(capsys)
    assert (found["statusCode"], found["body"]["files_processed"]) == (200, 1)
    assert invoke({"mode": "bulk"}) == 0
    assert answer(capsys)["body"]["files_skipped"] == 1
    text = json.dumps(notification(bucket.name, KEY)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["invoke", "-"]) == 0
    assert answer(capsys)["body"]["s3_key"] == KEY


def test_what_fails_has_exit_code_1(
    bucket: Bucket, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, video(1))
    good, bad = (notification(bucket.name, key) for key in (KEY, "section/1/gone.jsonl"))
    assert invoke(sqs(a=good)) == 0
    assert answer(capsys) == {"batchItemFailures": []}
    assert invoke(sqs(a=good, b=bad)) == 1
    assert answer(capsys) == {"batchItemFailures": [{"itemIdentifier": "b"}]}
    # The handler raises.
    assert invoke(bad) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 1 objects failed: " in err
    assert "does not exist" in err.splitlines()[-1]
    bucket.put(KEY, body=b"\x1f\x8b broken")
    assert invoke({"mode": "bulk"}) == 1
    assert answer(capsys)["body"]["success"] is False
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", "no-such-bucket")
    assert invoke({"health_check": True}) == 1
    assert answer(capsys)["statusCode"] == 503


def test_what_is_answered_with_400_or_is_no_json_has_exit_code_2(capsys: Printed) -> None:
    payloads: list[Any] = [{"mode": "blk"}, {"bucket": "another", "key": "k"}, [], 7]
    for payload in payloads:
        assert invoke(payload) == 2, payload
        found = answer(capsys)
        assert found["statusCode"] == 400
        assert found["body"]["error"]
    for text in ("{mode: bulk}", "", "{'a': 1}", "[" * 100_000):
        assert invoke(text) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert "the payload is not JSON" in line
