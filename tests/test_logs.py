"""What is logged and measured, and what never is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Bucket, Invoke
from tests.samples import notification, video
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import ConfigurationError, EventFailed
from xapi_etl_processor.lambda_function import handler

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
CANARY = "canary-7f3a9"

pytestmark = pytest.mark.usefixtures("logged_to_standard_output")


def printed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines of the log, each a JSON object."""
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def metrics(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The one line in CloudWatch's embedded metric format."""
    (found,) = (line for line in lines if "_aws" in line)
    return found


def test_metrics_have_environment_and_mode_as_their_only_dimensions(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1), video(2), b"bad")
    invoke(notification(bucket.name, KEY))
    found = metrics(printed(capfd))
    (directive,) = found["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["environment", "processing_mode"]]
    assert {metric["Name"] for metric in directive["Metrics"]} == {
        "events_processed",
        "video_events_processed",
        "rejected_lines",
        "success",
    }
    assert (found["environment"], found["processing_mode"]) == ("test", "event")
    assert (found["events_processed"], found["video_events_processed"]) == ([2], [2])
    assert (found["rejected_lines"], found["success"]) == ([1], [1])


def test_a_failure_is_measured_and_logged_as_a_failure(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(EventFailed):
        invoke(notification(bucket.name, "section/1/video/gone.jsonl"))
    lines = printed(capfd)
    assert metrics(lines)["success"] == [0]
    (error,) = (line for line in lines if line.get("level") == "ERROR")
    assert error["summary"]["failures"][0]["key"] == "section/1/video/gone.jsonl"


@pytest.mark.parametrize(
    ("payload", "mode"),
    [({"health_check": True}, "health_check"), ({"mode": "bulk"}, "bulk"), ({}, "event")],
)
def test_every_invocation_is_measured_with_its_mode(
    invoke: Invoke, capfd: pytest.CaptureFixture[str], payload: dict[str, Any], mode: str
) -> None:
    answer = invoke(payload)
    found = metrics(printed(capfd))
    assert found["processing_mode"] == mode
    assert found["success"] == [int(answer.status == 200)]


def test_a_log_line_has_request_mode_section_and_counts(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1))
    invoke(notification(bucket.name, KEY))
    (line,) = (line for line in printed(capfd) if line.get("level") == "INFO")
    assert (line["request_id"], line["processing_mode"]) == ("request-1", "event")
    assert (line["section_id"], line["environment"]) == (2001, "test")
    assert line["summary"]["files_processed"] == 1


def test_one_invocation_leaves_nothing_in_the_log_of_the_next(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1))
    invoke(notification(bucket.name, KEY))
    capfd.readouterr()
    invoke({"health_check": True})
    (line,) = (line for line in printed(capfd) if line.get("level") == "INFO")
    assert "section_id" not in line


def test_a_raised_error_is_logged_too(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError):
        handler({"mode": "bulk"})
    lines = printed(capfd)
    (error,) = (line for line in lines if line.get("level") == "ERROR")
    assert "LOG_LEVEL is 'LOUD'" in error["error"]
    assert metrics(lines)["success"] == [0]
