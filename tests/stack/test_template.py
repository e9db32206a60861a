"""The stack's template: rules of AWS that moto does not check."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any

import pytest

from tests.support.template import PARAMETERS, ROOT, TEMPLATE
from xapi_etl_processor import run
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.modes.redelivery import RESERVE_SECONDS
from xapi_etl_processor.queues.messages import MESSAGE_SECONDS
from xapi_etl_processor.queues.sqs import pause_seconds

RESOURCES: dict[str, Any] = TEMPLATE["Resources"]
FUNCTION = RESOURCES["Function"]["Properties"]
DOCUMENTATION = "\n".join(
    page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
)
MINUTE, HOUR = 60, 3600


def resources(kind: str) -> dict[str, Any]:
    return {name: r["Properties"] for name, r in RESOURCES.items() if r["Type"] == kind}


def statements() -> list[dict[str, Any]]:
    """What the role allows, with the statements that depend on a condition."""
    (policy,) = RESOURCES["Role"]["Properties"]["Policies"]
    found = policy["PolicyDocument"]["Statement"]
    return [s["Fn::If"][1] if "Fn::If" in s else s for s in found]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_text(value: Any) -> str:
    """A setting's value as its environment variable spells it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def functions_in(value: Any) -> set[str]:
    """Names of the intrinsic functions in part of the template."""
    if isinstance(value, list):
        return {name for item in value for name in functions_in(item)}
    if not isinstance(value, dict):
        return set()
    own = {name for name in value if name == "Ref" or name.startswith("Fn::")}
    return own.union(*(functions_in(item) for item in value.values()))


def test_rules_use_only_the_functions_that_cloudformation_allows_there() -> None:
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/rules-section-structure.html
    allowed = {"Ref", "Fn::And", "Fn::Or", "Fn::Not", "Fn::Equals", "Fn::EachMemberEquals"}
    assert functions_in(TEMPLATE["Rules"]) <= allowed


def test_the_template_is_small_and_the_console_shows_every_parameter_in_a_group() -> None:
    # CloudFormation's limit for a template in a request; above it, the aws command asks for
    # --s3-bucket.
    assert (ROOT / "cloudformation.yaml").stat().st_size < 44_000  # 51,200, less room to grow
    without = {name for name, parameter in PARAMETERS.items() if "Default" not in parameter}
    assert without == {"ClickHouseHost"}
    assert all(parameter["Description"] for parameter in PARAMETERS.values())
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(PARAMETERS)


def test_the_function_gets_every_variable_that_the_code_reads() -> None:
    read = {item.metadata["env"] for item in dataclasses.fields(Settings)}
    # What only development and `migrate` use, and what the role's rights say.
    not_set = {"CLICKHOUSE_PASSWORD", "LEARNER_KEY", "REJECTED_DAYS", "S3_XAPI_BUCKET_OWNER"}
    # Whose defaults are right for every stack.
    not_set |= {"BATCH_ROWS", "LOG_LEVEL"}
    given = FUNCTION["Environment"]["Variables"]
    # The C library reads this one.
    assert given.keys() == (read - not_set) | {"MALLOC_ARENA_MAX"}
    _, marker, rest = DOCUMENTATION.partition("<!-- environment: make docs -->")
    table = rest.partition("<!-- end")[0]
    assert marker
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == read


def test_the_stacks_defaults_are_the_codes_defaults() -> None:
    defaults = {
        item.metadata["env"]: item.default
        for item in dataclasses.fields(Settings)
        if item.default is not dataclasses.MISSING
    }
    # The stack uses TLS by default, the code does not.
    differing = {"CLICKHOUSE_SECURE", "CLICKHOUSE_PORT"}
    compared = 0
    for variable, value in FUNCTION["Environment"]["Variables"].items():
        if variable in defaults and variable not in differing and value.get("Ref") in PARAMETERS:
            default = PARAMETERS[value["Ref"]]["Default"]
            assert as_text(default) == as_text(defaults[variable]), variable
            compared += 1
    assert compared == 9
    assert PARAMETERS["ClickHouseSecure"]["Default"] == "true"


def test_the_code_reads_no_other_variable() -> None:
    others = {"AWS_CA_BUNDLE", "ENVIRONMENT", "LOG_LEVEL", "CLICKHOUSE_DRIVER_LASY_DATE_LUT"}
    for path in (ROOT / "xapi_etl_processor").rglob("*.py"):
        for name in re.findall(r"environ(?:\.get|\.setdefault)?[\[(]\"(\w+)\"", path.read_text()):
            assert name in others, f"{path.name} reads {name}"


@pytest.mark.check("S4", "S5")
def test_the_template_does_not_show_the_password() -> None:
    assert PARAMETERS["ClickHousePassword"]["NoEcho"] is True
    text = json.dumps(TEMPLATE["Resources"]) + json.dumps(TEMPLATE["Outputs"])
    assert text.count('"Ref": "ClickHousePassword"') == 1
    assert RESOURCES["Secret"]["Properties"]["SecretString"] == {"Ref": "ClickHousePassword"}


@pytest.mark.check("S1")
@pytest.mark.fault(62, caught_by="no right to write to S3")
def test_the_role_allows_what_the_function_uses_and_nothing_else() -> None:
    allowed = {s["Sid"]: sorted(listed(s["Action"])) for s in statements()}
    assert allowed == {
        "ReadBundles": ["s3:GetObject"],
        "ListBundles": ["s3:GetBucketNotification", "s3:ListBucket"],
        "ReceiveNotifications": [
            *("sqs:ChangeMessageVisibility", "sqs:DeleteMessage"),
            *("sqs:GetQueueAttributes", "sqs:ReceiveMessage"),
        ],
        "KeepWhatFailed": ["sqs:SendMessage"],
        "SendHistory": ["sqs:SendMessage"],
        "ReadSecrets": ["secretsmanager:GetSecretValue"],
        "WriteLog": ["logs:CreateLogStream", "logs:PutLogEvents"],
        "Decrypt": ["kms:Decrypt"],
        "Network": [
            *("ec2:AssignPrivateIpAddresses", "ec2:CreateNetworkInterface"),
            *("ec2:DeleteNetworkInterface", "ec2:DescribeNetworkInterfaces"),
            *("ec2:DescribeSubnets", "ec2:UnassignPrivateIpAddresses"),
        ],
    }
    anywhere = [s["Sid"] for s in statements() if "*" in listed(s["Resource"])]
    assert anywhere == ["Network"]
    assert "ManagedPolicyArns" not in RESOURCES["Role"]["Properties"]


@pytest.mark.check("S12", "S18")
@pytest.mark.fault(15, caught_by="visibility timeout")
def test_a_message_stays_invisible_while_in_progress_and_is_a_dead_letter_before_it_expires() -> (
    None
):
    queue, dead = RESOURCES["Queue"]["Properties"], RESOURCES["DeadLetterQueue"]["Properties"]
    table, key, _ = queue["VisibilityTimeout"]["Fn::FindInMap"]
    assert (table, key) == ("VisibilityTimeout", {"Ref": "Timeout"})
    deliveries = queue["RedrivePolicy"]["maxReceiveCount"]
    for timeout in PARAMETERS["Timeout"]["AllowedValues"]:
        visibility = TEMPLATE["Mappings"]["VisibilityTimeout"][timeout]["Seconds"]
        # AWS recommends six times the function's timeout plus the batching window.
        assert visibility >= 6 * int(timeout) + PARAMETERS["BatchingWindow"]["MaxValue"], timeout
        assert visibility <= 12 * 60 * MINUTE  # SQS's limit
        # Also if the function times out at each delivery.
        assert deliveries * visibility < 8 * 24 * HOUR, timeout
    assert queue["MessageRetentionPeriod"] == 10 * 24 * HOUR
    # A message keeps its age when SQS moves it.
    assert dead["MessageRetentionPeriod"] == 14 * 24 * HOUR


@pytest.mark.fault(70, caught_by="redelivery")
def test_a_message_is_delivered_for_longer_than_an_outage_lasts() -> None:
    deliveries = RESOURCES["Queue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"]
    seconds = sum(pause_seconds(n) for n in range(1, deliveries))
    assert seconds == (1 + 2 + 4 + 8 + 115 * 10) * MINUTE
    assert 19 * HOUR < seconds < 20 * HOUR


def test_the_shortest_timeout_leaves_time_for_work_and_for_messages_of_the_backfill() -> None:
    shortest = min(map(int, PARAMETERS["Timeout"]["AllowedValues"]))
    assert shortest > 2 * run.RESERVE_SECONDS
    assert shortest - run.RESERVE_SECONDS - RESERVE_SECONDS >= 3 * MESSAGE_SECONDS


def test_the_queue_of_the_backfill_keeps_and_tries_messages_as_the_other_does() -> None:
    queue, backfill = dict(RESOURCES["Queue"]["Properties"]), RESOURCES["BackfillQueue"]
    name = queue.pop("QueueName")["Fn::Sub"]
    assert backfill["Properties"] == {**queue, "QueueName": {"Fn::Sub": f"{name}-backfill"}}
    assert resources("AWS::Lambda::EventSourceMapping")["BackfillSource"]["BatchSize"] == 1


@pytest.mark.check("S12")
def test_logs_are_kept_thirty_days_where_the_function_writes_them() -> None:
    group = RESOURCES["LogGroup"]["Properties"]
    assert group["RetentionInDays"] == 30
    assert group["LogGroupName"] == {"Fn::Sub": "/aws/lambda/xapi-etl-processor-${Environment}"}
    assert FUNCTION["LoggingConfig"]["LogGroup"] == {"Ref": "LogGroup"}
    assert FUNCTION["FunctionName"] == {"Fn::Sub": "${Environment}-xapi-etl-processor"}


def test_the_documentation_explains_every_alarm_and_parameter() -> None:
    for alarm in resources("AWS::CloudWatch::Alarm").values():
        name = alarm["AlarmName"]["Fn::Sub"].removeprefix("${Environment}-xapi-etl-processor-")
        assert f"`{name}`" in DOCUMENTATION
    for name in PARAMETERS:
        assert f"`{name}`" in DOCUMENTATION, name


def test_the_placeholder_raises_and_never_changes() -> None:
    placeholder = FUNCTION["Code"]["Fn::If"][2]["ZipFile"]
    scope: dict[str, Any] = {}
    exec(placeholder, scope)  # noqa: S102  # our own code
    function = type("Context", (), {"function_name": "dev-x"})
    with pytest.raises(RuntimeError, match=r"^no code yet: run ./deploy.sh --deploy dev-x$"):
        scope["handler"]({}, function)
    # CloudFormation would replace deployed code with a changed placeholder.
    assert hashlib.sha256(placeholder.encode()).hexdigest().startswith("40e7c4be6d30e83b")
