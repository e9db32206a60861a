"""The alarms are raised when they must be, and only then; the dashboard shows real metrics."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from awscli.clidriver import create_clidriver

from tests.support.alarms import Sample, is_raised, watched
from tests.support.template import ROOT, Stack
from xapi_etl_processor.base import telemetry

STACK = Stack()
ALARMS = STACK.resources("AWS::CloudWatch::Alarm")
QUEUE = {"QueueName": "Queue.QueueName"}
BACKFILL = {"QueueName": "BackfillQueue.QueueName"}
DEAD_LETTERS = {"QueueName": "DeadLetterQueue.QueueName"}
FUNCTION = {"FunctionName": "Function"}
MINUTE, HOUR = 60, 3600

# How AWS says that its metrics are to be read: those that count, by their sum; the others, which
# are states, by their highest value.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
STATISTICS = {
    ("AWS/Lambda", "Invocations"): {"Sum"},
    ("AWS/Lambda", "Errors"): {"Sum"},
    ("AWS/Lambda", "Throttles"): {"Sum"},
    ("AWS/Lambda", "DeadLetterErrors"): {"Sum"},
    ("AWS/Lambda", "ConcurrentExecutions"): {"Maximum"},
    ("AWS/Lambda", "Duration"): {"p50", "p99", "Maximum"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"Maximum"},
    ("AWS/SQS", "ApproximateNumberOfMessagesNotVisible"): {"Maximum"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"Maximum"},
    ("AWS/SQS", "NumberOfMessagesDeleted"): {"Sum"},
}

Measured = Callable[..., list[Sample]]


@pytest.fixture
def measured(capfd: pytest.CaptureFixture[str]) -> Measured:
    """The samples that the function emits for an invocation."""

    def measured(ago: float, mode: str, *, success: bool = True, **counts: Any) -> list[Sample]:
        telemetry.emit(dict(counts), mode, STACK.values["Environment"], success=success)
        line = json.loads(capfd.readouterr().out)
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        dimensions = {name: line[name] for name in directive["Dimensions"][0]}
        return [
            Sample(ago, directive["Namespace"], metric["Name"], dimensions, value)
            for metric in directive["Metrics"]
            for value in line[metric["Name"]]
        ]

    return measured


def raised(*samples: Sample) -> set[str]:
    """The alarms that these samples raise, by the end of their names."""
    prefix = f"{STACK.values['Environment']}-xapi-etl-processor-"
    return {
        alarm["AlarmName"].removeprefix(prefix)
        for alarm in ALARMS.values()
        if is_raised(alarm, samples)
    }


def sqs(ago: float, name: str, queue: dict[str, str], value: float) -> Sample:
    return Sample(ago, "AWS/SQS", name, queue, value)


def from_lambda(ago: float, name: str, value: float = 1) -> Sample:
    return Sample(ago, "AWS/Lambda", name, FUNCTION, value)


def test_a_single_dead_letter_or_one_that_was_lost_raises_an_alarm_within_a_minute() -> None:
    assert raised() == set()
    visible = "ApproximateNumberOfMessagesVisible"
    assert raised(sqs(MINUTE, visible, DEAD_LETTERS, 1)) == {"dead-letters"}
    # SQS measures several times a minute: one measurement is enough.
    assert raised(*(sqs(1, visible, DEAD_LETTERS, n) for n in (0, 1, 0))) == {"dead-letters"}
    assert raised(sqs(1, visible, DEAD_LETTERS, 0)) == set()
    assert raised(sqs(MINUTE + 1, visible, DEAD_LETTERS, 1)) == set()
    assert raised(sqs(1, visible, QUEUE, 1000)) == set()
    # Lambda could not keep a failed event.
    assert raised(from_lambda(MINUTE, "DeadLetterErrors")) == {"lost-dead-letters"}
    assert raised(from_lambda(MINUTE + 1, "DeadLetterErrors")) == set()


def test_a_bundle_that_waits_longer_than_an_hour_and_throttling_raise_an_alarm() -> None:
    # Throttling for fifteen minutes.
    every = [from_lambda(ago, "Throttles") for ago in (1, 301, 900)]
    assert raised(*every) == {"throttles"}
    assert raised(*every[:2]) == raised(*every[1:]) == set()
    assert raised(*(from_lambda(ago, "Throttles", 0) for ago in (1, 301, 900))) == set()
    age = "ApproximateAgeOfOldestMessage"
    assert raised(*(sqs(ago, age, QUEUE, 3601) for ago in (1, 300))) == {"oldest-message"}
    assert raised(sqs(300, age, QUEUE, 3601), sqs(1, age, QUEUE, 0)) == {"oldest-message"}
    assert raised(sqs(1, age, QUEUE, 3600)) == set()
    assert raised(sqs(301, age, QUEUE, 3601)) == set()
    assert raised(sqs(1, age, DEAD_LETTERS, 10**6)) == set()


def test_a_backfill_of_which_nothing_is_done_for_an_hour_raises_an_alarm() -> None:
    visible, deleted = "ApproximateNumberOfMessagesVisible", "NumberOfMessagesDeleted"
    quarters = (1, 901, 1801, 3600)
    waiting = [sqs(ago, visible, BACKFILL, 2000) for ago in quarters]
    assert raised(*waiting) == {"backfill-stalled"}
    assert raised(*waiting[1:]) == raised(*waiting[:3]) == set()
    # A backfill may wait for days, as long as some of it is done.
    assert raised(*waiting, sqs(1000, deleted, BACKFILL, 1)) == set()
    assert raised(*waiting, *(sqs(ago, deleted, BACKFILL, 0) for ago in quarters)) == {
        "backfill-stalled"
    }
    assert raised(*(sqs(ago, visible, BACKFILL, 0) for ago in quarters)) == set()
    assert raised(*waiting, sqs(1, deleted, QUEUE, 9)) == {"backfill-stalled"}
    assert raised(*(sqs(ago, visible, QUEUE, 2000) for ago in quarters)) == set()


@pytest.mark.check("S19")
def test_invocations_that_fail_in_two_of_six_periods_raise_an_alarm(measured: Measured) -> None:
    # A raised error counts in Lambda's metric, and the function cannot always measure it itself.
    for ago, alarms in {900: {"errors"}, 300: set(), 1800: {"errors"}, 1801: set()}.items():
        assert raised(from_lambda(1, "Errors"), from_lambda(ago, "Errors")) == alarms, ago
    # Lambda measures no error for a batch that fails in part: only the function knows.
    partial = [sample for ago in (1, 301) for sample in measured(ago, "event", success=False)]
    assert raised(*partial) == {"errors"}
    among_others = [s for ago in (1, 2, 301, 302) for s in measured(ago, "event")]
    assert raised(*partial, *among_others) == {"errors"}
    assert raised(*measured(1, "event", success=False), *among_others) == set()
    assert raised(*among_others, *(from_lambda(ago, "Errors", 0) for ago in (1, 301))) == set()


def test_the_alarm_stays_raised_during_an_outage(measured: Measured) -> None:
    # Messages come back every ten minutes, and an invocation takes up to five.
    for pause in (600, 900):
        failed = [measured(ago, "event", success=False) for ago in range(0, 3600, pause)]
        for now in range(0, pause, 180):
            later = [s._replace(ago=s.ago + now) for samples in failed for s in samples]
            assert raised(*later) == {"errors"}, (pause, now)


def test_a_hundred_rejected_lines_of_both_modes_in_an_hour_raise_an_alarm(
    measured: Measured,
) -> None:
    live = [*measured(HOUR, "event", rejected_lines=55), *measured(9, "event", rejected_lines=5)]
    backfill = measured(1, "bulk", rejected_lines=40)
    assert raised(*live, *backfill) == {"rejected-lines"}
    assert raised(*measured(1, "bulk", rejected_lines=100)) == {"rejected-lines"}
    assert raised(*measured(1, "event", rejected_lines=100)) == {"rejected-lines"}
    assert raised(*live, *measured(1, "bulk", rejected_lines=39)) == set()
    assert raised(*measured(HOUR + 1, "event", rejected_lines=60), *backfill) == set()
    twice = [sample for ago in (1, 2) for sample in measured(ago, "bulk", rejected_lines=50)]
    assert raised(*twice) == {"rejected-lines"}
    assert raised(*measured(1, "event", events_processed=10**6)) == set()


def verification(measured: Measured, ago: float, **more: Any) -> list[Sample]:
    answer = {"objects_missing": 0, "complete": True, "failures": [], "continue": True, **more}
    return measured(ago, "bulk", **answer)


def test_one_object_that_a_verification_misses_raises_an_alarm_until_the_next_one(
    measured: Measured,
) -> None:
    missing = {"objects-missing"}
    assert raised(*verification(measured, HOUR, objects_missing=1)) == missing
    assert raised(*verification(measured, 1)) == set()
    # A verification that did not compare everything raises the alarm too.
    failed = {"failures": [{"key": "k", "error": "e"}]}
    assert raised(*verification(measured, 20 * HOUR, complete=False)) == missing
    assert raised(*verification(measured, 20 * HOUR, **failed)) == missing
    found = verification(measured, 25 * HOUR, objects_missing=2)
    right = verification(measured, 2 * MINUTE)
    assert raised(*found, *right) == set()
    assert raised(*right, *verification(measured, 1, objects_missing=1)) == missing
    # Neither loading the objects nor verifying only some of them ends the alarm.
    assert raised(*found, *measured(1, "bulk", events_processed=9)) == missing
    part = measured(1, "bulk", objects_missing=0, complete=True, failures=[])
    assert raised(*found, *part) == missing


def test_only_verifications_say_how_much_is_missing_and_health_checks_count_nothing(
    measured: Measured,
) -> None:
    names = {"objects_missing", "verifications_unfinished"}
    assert not names & {sample.name for sample in measured(1, "bulk")}
    assert [sample.name for sample in measured(1, "health_check")] == ["success"]


@pytest.mark.slow
@pytest.mark.usefixtures("aws_environment")
def test_the_alarm_of_the_page_rings_when_nothing_was_loaded_for_twelve_hours(
    measured: Measured,
) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"^(aws cloudwatch put-metric-alarm .*?)\n```", page, re.M | re.S)
    topic = "arn:aws:sns:us-east-1:123456789012:on-call"
    options = shlex.split(command.replace("\\\n", "").replace("YOUR_TOPIC_ARN", topic))
    assert create_clidriver().main(options[1:]) == 0
    named = [f"{STACK.values['Environment']}-xapi-etl-processor-silence"]
    (alarm,) = boto3.client("cloudwatch").describe_alarms(AlarmNames=named)["MetricAlarms"]
    assert (alarm["AlarmActions"], alarm["OKActions"]) == ([topic], [topic])
    assert alarm["EvaluationPeriods"] * alarm["Period"] == 12 * HOUR
    alarm = {name: value for name, value in alarm.items() if name != "Metrics"}
    assert is_raised(alarm, [])
    for ago in (1, 12 * HOUR):
        assert not is_raised(alarm, measured(ago, "event", events_processed=1))
    assert is_raised(alarm, measured(12 * HOUR + 1, "event", events_processed=1))
    assert is_raised(alarm, measured(1, "event", events_processed=0))
    assert is_raised(alarm, measured(1, "bulk", events_processed=9))


@pytest.mark.check("S19")
def test_alarms_notify_the_topic_when_they_are_raised_and_when_they_end() -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:on-call"
    for alarm in Stack(AlarmTopicArn=topic).resources("AWS::CloudWatch::Alarm").values():
        assert (alarm["AlarmActions"], alarm["OKActions"]) == ([topic], [topic])
    for alarm in ALARMS.values():
        assert (alarm["AlarmActions"], alarm["OKActions"]) == ([], [])
        assert "InsufficientDataActions" not in alarm


def test_every_alarm_reads_metrics_of_aws_as_aws_says() -> None:
    for name, alarm in ALARMS.items():
        for metric in watched(alarm):
            if metric["Namespace"] != telemetry.NAMESPACE:
                known = STATISTICS[metric["Namespace"], metric["MetricName"]]
                assert metric["Statistic"] in known, name
        # All metrics of one expression have the same period, or CloudWatch refuses the alarm.
        assert len({metric["Period"] for metric in watched(alarm)}) == 1, name


def dashboard() -> list[dict[str, Any]]:
    return list(json.loads(STACK["Dashboard"]["DashboardBody"])["widgets"])


def shown() -> list[tuple[dict[str, Any], str, str, dict[str, str], dict[str, Any]]]:
    """Each metric of the dashboard: its widget, namespace, name, dimensions and options."""
    found = []
    for widget in dashboard():
        before: list[str] = []
        for line in widget["properties"].get("metrics", ()):
            options = line[-1] if isinstance(line[-1], dict) else {}
            texts = [item for item in line if isinstance(item, str)]
            # A dot repeats what stands there in the line above.
            before = [
                old if new == "." else new for old, new in zip(before or texts, texts, strict=True)
            ]
            dimensions = dict(zip(before[2::2], before[3::2], strict=True))
            found.append((widget["properties"], before[0], before[1], dimensions, options))
    return found


@pytest.mark.check("S19")
def test_the_dashboard_shows_every_metric_that_the_function_emits_and_no_other(
    measured: Measured,
) -> None:
    samples = [one for mode in ("event", "bulk", "health_check") for one in measured(0, mode)]
    samples += verification(measured, 0)
    emitted = {(sample.name, *sorted(sample.dimensions.items())) for sample in samples}
    ours = [
        (name, *sorted(dimensions.items()))
        for _, namespace, name, dimensions, _ in shown()
        if namespace == telemetry.NAMESPACE
    ]
    assert set(ours) <= emitted
    assert len(ours) == len(set(ours)) == 14
    assert {name for name, *_ in ours} == {name for name, *_ in emitted}


def test_the_dashboard_reads_every_metric_as_it_must_be_read() -> None:
    for widget, namespace, name, dimensions, options in shown():
        statistic = options.get("stat", widget.get("stat"))
        if namespace == telemetry.NAMESPACE:
            # The share of invocations that succeeded is the average of ones and zeros.
            assert statistic == ("Average" if name == "success" else "Sum"), name
        else:
            assert statistic in STATISTICS[namespace, name], name
            assert dimensions in (
                [FUNCTION] if namespace == "AWS/Lambda" else [QUEUE, BACKFILL, DEAD_LETTERS]
            )


def test_the_dashboard_shows_every_alarm_and_the_newest_failures_of_the_log() -> None:
    (alarms,) = [w for w in dashboard() if w["type"] == "alarm"]
    assert sorted(alarms["properties"]["alarms"]) == sorted(f"{name}.Arn" for name in ALARMS)
    (log,) = [w for w in dashboard() if w["type"] == "log"]
    query = log["properties"]["query"]
    assert query.startswith("SOURCE 'LogGroup' | filter level in ['ERROR', 'CRITICAL'] |")
    # What tests/base/test_logs.py finds in the function's lines.
    assert query.split(" | ")[2:] == [
        "fields @timestamp, processing_mode, section_id,"
        " coalesce(summary.failures.0.error, summary.error, error) as why",
        "sort @timestamp desc",
        "limit 50",
    ]


def test_an_alarms_description_names_a_heading_of_the_operations_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    for alarm in ALARMS.values():
        heading = re.search(r'See docs/operations\.md, "(.+)"\.$', alarm["AlarmDescription"])
        assert heading, alarm["AlarmName"]
        assert re.search(rf"^#+ {heading[1]}$", page, re.M)
