"""The command invoke: payloads through the handler, and what their answers mean to a script."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.conftest import Bucket
from tests.support.samples import notification, sqs, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main

pytestmark = pytest.mark.usefixtures("own_stream")

Printed = pytest.CaptureFixture[str]
KEY = "section/1/video/a.jsonl"


def invoke(payload: Any) -> int:
    return main(["invoke", payload if isinstance(payload, str) else json.dumps(payload)])


def answer(capsys: Printed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_answer_is_shown_with_its_status_and_its_body_as_json(
    bucket: Bucket, settings: Settings, capsys: Printed
) -> None:
    bucket.put(KEY, video(1))
    assert invoke({"bucket": bucket.name, "key": KEY}) == 0
    found = answer(capsys)
    assert (found["statusCode"], found["body"]["files_processed"]) == (200, 1)
    assert invoke({"mode": "bulk"}) == 0
    assert answer(capsys)["body"]["files_skipped"] == 1


def test_a_payload_is_read_from_standard_input(
    bucket: Bucket, settings: Settings, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, video(1))
    text = json.dumps(notification(bucket.name, KEY)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert main(["invoke", "-"]) == 0
    assert answer(capsys)["body"]["s3_key"] == KEY


def test_messages_that_failed_have_exit_code_1(
    bucket: Bucket, settings: Settings, capsys: Printed
) -> None:
    bucket.put(KEY, video(1))
    good = notification(bucket.name, KEY)
    assert invoke(sqs(a=good)) == 0
    assert answer(capsys) == {"batchItemFailures": []}
    assert invoke(sqs(a=good, b=notification(bucket.name, "section/1/gone.jsonl"))) == 1
    assert answer(capsys) == {"batchItemFailures": [{"itemIdentifier": "b"}]}


def test_what_the_handler_raises_is_said_with_exit_code_1(
    bucket: Bucket, settings: Settings, capsys: Printed
) -> None:
    assert invoke(notification(bucket.name, "section/1/gone.jsonl")) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "1 of 1 objects failed: " in err
    assert "does not exist" in err.splitlines()[-1]


def test_a_failure_that_is_answered_has_exit_code_1(
    bucket: Bucket, settings: Settings, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put(KEY, body=b"\x1f\x8b broken")
    assert invoke({"mode": "bulk"}) == 1
    assert answer(capsys)["body"]["success"] is False
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", "no-such-bucket")
    assert invoke({"health_check": True}) == 1
    assert answer(capsys)["statusCode"] == 503


@pytest.mark.parametrize("payload", [{"mode": "blk"}, {"bucket": "another", "key": "k"}, [], 7])
def test_what_is_answered_with_400_has_exit_code_2(
    settings: Settings, capsys: Printed, payload: Any
) -> None:
    assert invoke(payload) == 2
    found = answer(capsys)
    assert found["statusCode"] == 400
    assert found["body"]["error"]


@pytest.mark.parametrize("text", ["{mode: bulk}", "", "{'a': 1}", "[" * 100_000])
def test_what_is_no_json_has_exit_code_2_and_one_clear_line(
    settings: Settings, capsys: Printed, text: str
) -> None:
    assert invoke(text) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "the payload is not JSON" in line
