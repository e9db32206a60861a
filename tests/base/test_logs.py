"""What is logged and measured, and what never is."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import Bucket, Invoke
from tests.support.samples import notification, sqs, video
from xapi_etl_processor import lambda_function
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ConfigurationError, Defect, EventFailed
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


def test_the_log_and_the_metrics_say_which_request_it_was_and_what_it_counted(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1), video(2, timestamp=None), video(3, timestamp="soon"), b"bad")
    invoke(notification(bucket.name, KEY))
    lines = printed(capfd)
    (line,) = (line for line in lines if line.get("level") == "INFO")
    assert (line["request_id"], line["processing_mode"]) == ("request-1", "event")
    assert (line["section_id"], line["environment"]) == (2001, "test")
    assert (line["summary"]["files_processed"], line["summary"]["timestamps_replaced"]) == (1, 2)
    found = metrics(lines)
    (directive,) = found["_aws"]["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["environment", "processing_mode"]]
    assert (found["environment"], found["processing_mode"]) == ("test", "event")
    assert {metric["Name"]: found[metric["Name"]] for metric in directive["Metrics"]} == {
        "events_processed": [3],
        "video_events_processed": [3],
        "rejected_lines": [1],
        "timestamps_replaced": [2],
        "dead_letters": [0],
        "success": [1],
    }


@pytest.mark.slow
@pytest.mark.fault(8, caught_by="a metric with an alarm")
def test_a_failure_of_an_object_is_measured_and_logged_as_a_failure_in_every_mode(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where Lambda counts no error, only this metric can raise the alarm."""
    gone = "section/1/video/gone.jsonl"
    with pytest.raises(EventFailed):
        invoke(notification(bucket.name, gone))
    lines = printed(capfd)
    assert metrics(lines)["success"] == [0]
    (error,) = (line for line in lines if line.get("level") == "ERROR")
    assert error["summary"]["failures"][0]["key"] == gone
    # A bulk run answers.
    for body, success in ((b"\n", 1), (b"\x1f\x8b no gzip", 0)):
        bucket.put(KEY, body=body)
        assert invoke({"mode": "bulk"})["success"] is bool(success)
        assert metrics(printed(capfd))["success"] == [success]
    # To Lambda, an SQS batch that failed in part is a success.
    there = [bucket.put(f"section/1/video/{name}.jsonl", video(1)) for name in ("one", "two")]
    for keys, success in ((there, 1), ([there[0], gone], 0), ([gone, gone], 0)):
        invoke(sqs(**{f"m{n}": notification(bucket.name, key) for n, key in enumerate(keys)}))
        lines = printed(capfd)
        assert metrics(lines)["success"] == [success], keys
        (ended,) = (line for line in lines if "summary" in line)
        assert ended["level"] == ("INFO" if success else "ERROR")


@pytest.mark.slow
def test_every_invocation_is_measured_with_its_mode(
    invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    health: dict[str, Any] = {"health_check": True}
    for payload, mode in ((health, "health_check"), ({"mode": "bulk"}, "bulk"), ({}, "event")):
        answer = invoke(payload)
        found = metrics(printed(capfd))
        assert found["processing_mode"] == mode
        assert found["success"] == [int(answer.status == 200)]


def test_an_answer_and_a_raised_error_are_logged_without_what_was_logged_before(
    bucket: Bucket,
    invoke: Invoke,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket.put(KEY, video(1))
    invoke(notification(bucket.name, KEY))
    capfd.readouterr()
    invoke({"health_check": True})
    (line,) = (line for line in printed(capfd) if line.get("level") == "INFO")
    assert "section_id" not in line
    monkeypatch.setenv("LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError):
        handler({"mode": "bulk"})
    lines = printed(capfd)
    (error,) = (line for line in lines if line.get("level") == "ERROR")
    assert "LOG_LEVEL is 'LOUD'" in error["error"]
    assert "section_id" not in error
    assert metrics(lines)["success"] == [0]


def test_a_message_that_names_no_object_is_in_the_summary(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    key = bucket.put(KEY, video(1))
    invoke(sqs(good=notification(bucket.name, key), poison="not JSON"))
    (ended,) = (line for line in printed(capfd) if "summary" in line)
    assert (ended["summary"]["success"], ended["summary"]["files_failed"]) == (False, 0)
    assert ended["summary"]["failures"] == [
        {"key": "message poison", "error": "the SQS message body is not JSON"}
    ]


@pytest.mark.slow
def test_a_failed_connection_is_logged_once_and_without_a_traceback(
    invoke: Invoke, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver logs one too, by itself."""
    monkeypatch.setenv("CLICKHOUSE_PORT", "1")
    assert invoke({"health_check": True}, seconds_left=2).status == 503
    assert [r.name for r in caplog.records if r.name.startswith("clickhouse_driver")] == []


def test_an_answer_names_a_hundred_objects_and_a_warning_twenty_that_are_no_bundles(
    bucket: Bucket, invoke: Invoke, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever else a bucket's notifications name. All are counted, and the log lists none."""
    names = [f"section/{n % 2}/report-{n:03}.csv" for n in range(103)]
    answer = invoke(notification(bucket.name, *names))
    assert [found["s3_key"] for found in answer["files"]] == names[:100]
    assert (answer["files_found"], answer["files_ignored"]) == (0, 103)
    lines = printed(capfd)
    (warning,) = (line for line in lines if line.get("level") == "WARNING")
    assert warning["objects"] == [bucket.uri(name) for name in names[:20]]
    (ended,) = (line for line in lines if "summary" in line)
    assert ended["summary"]["files_ignored"] == 103
    assert "files" not in ended["summary"]


@pytest.mark.check("S10")
def test_an_unexpected_error_is_raised_and_logged_by_its_type_and_place_alone(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda logs what is raised, with its cause and context."""

    def fail(_: object) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(lambda_function, "parse_payload", fail)
    with pytest.raises(
        Defect, match=r"^ZeroDivisionError at .*test_logs\.py:\d+: report"
    ) as caught:
        handler({"bucket": "b", "key": "k"})
    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)
    assert CANARY not in capfd.readouterr().out


@pytest.mark.slow
def test_a_handler_of_lambdas_own_does_not_log_a_line_again() -> None:
    code = (
        "import logging; logging.basicConfig()\n"
        "from xapi_etl_processor.base.telemetry import logger; logger.warning('said once')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout + done.stderr).count("said once") == 1
