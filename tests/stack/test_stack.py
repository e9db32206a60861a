"""The stack, deployed with the real aws command: an uploaded bundle becomes rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import boto3
import pytest

from tests.conftest import PASSWORD, Ask
from tests.faults.tcp_proxy import CutAnswers, tcp_proxy
from tests.support.account import (
    PYTHON,
    Functions,
    create_stack,
    deploy_sh,
    deploy_stack,
    package_of,
    running_functions,
)
from tests.support.event_source_mapping import EventSourceMapping, failed_messages
from tests.support.packages import HERE, Packages
from tests.support.samples import event_id, video
from xapi_etl_processor.base.config import Settings

pytestmark = pytest.mark.slow

NAME = "dev-xapi-etl-processor"


@pytest.fixture
def functions(
    packages: Packages,
    aws_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Functions]:
    """An empty account that runs functions."""
    packages.interpreter(PYTHON)
    if HERE != "x86_64":
        pytest.skip("moto creates every function of a stack for x86_64")
    boto3.client("s3")  # creates boto3's default session here, not in a later test
    reset(aws_environment)
    with running_functions(tmp_path, packages, aws_environment, monkeypatch) as running:
        yield running
    reset(aws_environment)


def reset(aws_environment: dict[str, str]) -> None:
    import requests

    requests.post(f"{aws_environment['AWS_ENDPOINT_URL']}/moto-api/reset", timeout=30)


@pytest.fixture
def deployed(functions: Functions, packages: Packages) -> Callable[[], None]:
    """Uploads the package and publishes a version, as deploy.sh does, without its many commands."""

    def deployed() -> None:
        code = packages.zip(PYTHON).read_bytes()
        functions_of_account = boto3.client("lambda")
        functions_of_account.publish_version(FunctionName=NAME)
        functions_of_account.update_function_code(FunctionName=NAME, ZipFile=code)
        functions_of_account.publish_version(FunctionName=NAME)

    return deployed


@pytest.fixture
def parameters(settings: Settings, functions: Functions) -> dict[str, str]:
    """The stack's parameters for this test's ClickHouse."""
    return {
        "Environment": "dev",
        "ClickHouseHost": settings.clickhouse_host,
        "ClickHousePort": str(settings.clickhouse_port),
        "ClickHouseSecure": "false",
        "ClickHouseDatabase": settings.clickhouse_database,
        "ClickHouseUsername": settings.clickhouse_username,
        "ClickHousePassword": settings.clickhouse_password,
        "PythonVersion": f"python{PYTHON}",
    }


def put(bucket: str, key: str, *statements: dict[str, Any]) -> None:
    body = "".join(json.dumps(statement) + "\n" for statement in statements)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body.encode())


def messages(url: str) -> list[Any]:
    """The visible messages of a queue, parsed."""
    found: list[Any] = []
    sqs: Any = boto3.client("sqs")
    while more := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        found += [json.loads(message["Body"]) for message in more]
    return found


def reasons(url: str) -> list[str]:
    """Why the messages of a dead-letter queue are there, sorted; they stay visible."""
    sqs: Any = boto3.client("sqs")
    found = sqs.receive_message(
        QueueUrl=url,
        MaxNumberOfMessages=10,
        MessageAttributeNames=["reason"],
        VisibilityTimeout=0,
    )
    return sorted(m["MessageAttributes"]["reason"]["StringValue"] for m in found["Messages"])


def test_the_stack_needs_only_a_host_and_a_password_and_shows_the_next_step(
    functions: Functions,
) -> None:
    outputs = deploy_stack(
        "xapi-etl-dev",
        Environment="dev",
        ClickHouseHost="your-host",
        ClickHousePassword="your-password",
        PythonVersion=f"python{PYTHON}",
    )
    assert outputs["NextStep"] == f"./deploy.sh --deploy {NAME}"
    assert outputs["FunctionName"] == NAME
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=NAME)
    assert "your-password" not in json.dumps(configuration)
    answer = boto3.client("lambda").invoke(FunctionName=NAME, Payload=b"{}")
    assert answer["FunctionError"]
    message = json.loads(answer["Payload"].read())["errorMessage"]
    assert message == f"no code yet: run ./deploy.sh --deploy {NAME}"


def test_messages_that_arrive_before_the_code_wait_for_it(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str], ask: Ask
) -> None:
    outputs = create_stack("xapi-etl-dev", **parameters)
    put(outputs["BucketName"], "section/7/video/a.jsonl", video(1))
    mapping = EventSourceMapping(outputs["EventSourceMappingId"])
    mapping.run_once()
    assert ask("SELECT count() FROM video_events") == [[0]]
    deployed()
    mapping.run()
    assert ask("SELECT event_id FROM video_events FINAL") == [[event_id(1)]]


@pytest.mark.long
@pytest.mark.fault(7, 8, caught_by="partial batch response; dead letter at the fifth delivery")
def test_bundles_become_rows_and_only_bad_messages_become_dead_letters(
    functions: Functions, parameters: dict[str, str], ask: Ask
) -> None:
    outputs = create_stack("xapi-etl-dev", **parameters)
    done = deploy_sh("--deploy", NAME)
    assert done.returncode == 0, done.stderr
    assert '"healthy": true' in done.stdout
    assert PASSWORD not in done.stdout + done.stderr

    bucket, keys = outputs["BucketName"], [f"section/7/video/é +%2B {n}.jsonl" for n in range(25)]
    for number, key in enumerate(keys):
        put(bucket, key, video(number), video(1000))
    put(bucket, "section/7/video/notes.txt", video(2000))
    put(bucket, "elsewhere/section/7/video/a.jsonl", video(2001))
    damaged = "section/7/video/cut.jsonl.gz"
    boto3.client("s3").put_object(Bucket=bucket, Key=damaged, Body=b"\x1f\x8b\x08 no gzip")
    sqs: Any = boto3.client("sqs")
    sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody='"no event"')

    deliveries = EventSourceMapping(outputs["EventSourceMappingId"]).run()

    deleted = [name for delivery in deliveries for name in delivery.deleted]
    # The bundles, the test event that S3 sends to a new queue, and the dead letters.
    assert len(deleted) == len(set(deleted)) == 25 + 1 + 2
    no_event, no_gzip = reasons(outputs["DeadLetterQueueUrl"])
    assert no_event == "not an S3 event: a JSON object is needed"
    assert no_gzip.startswith(f"s3://{bucket}/{damaged}: gzip stream is damaged")
    dead = messages(outputs["DeadLetterQueueUrl"])
    assert "no event" in dead
    dead_keys = [m["Records"][0]["s3"]["object"]["key"] for m in dead if m != "no event"]
    assert [unquote_plus(key) for key in dead_keys] == [damaged]
    assert messages(outputs["QueueUrl"]) == []
    assert ask("SELECT event_id FROM video_events FINAL ORDER BY 1") == [
        [event_id(number)] for number in (*range(25), 1000)
    ]
    assert ask("SELECT count(), sum(lines) FROM processed_files FINAL") == [[25, 50]]
    # Five deliveries, and no message that had succeeded was delivered again.
    assert [len(one.ids) - len(one.deleted) for one in deliveries] == [2, 2, 2, 2, 0]
    assert len(deliveries[-1].ids) == 2


def test_history_goes_through_a_queue_of_its_own(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str], ask: Ask
) -> None:
    outputs = create_stack("xapi-etl-dev", **parameters)
    deployed()
    for number in range(3):
        key = f"section/7/video/2024-0{number + 1}-01T12-00-00Z_1.jsonl"
        put(outputs["BucketName"], key, video(number))
    EventSourceMapping(outputs["EventSourceMappingId"])._receive()
    answer = boto3.client("lambda").invoke(
        FunctionName=NAME, Payload=b'{"mode": "bulk", "engine": "queue"}'
    )
    body = json.loads(json.loads(answer["Payload"].read())["body"])
    assert (body["complete"], body["files_sent"], body["messages"]) == (True, 3, 3)
    deliveries = EventSourceMapping(outputs["BackfillSourceId"]).run()
    assert [len(delivery.deleted) for delivery in deliveries] == [1, 1, 1]
    assert ask("SELECT event_id FROM video_events FINAL ORDER BY 1") == [
        [event_id(number)] for number in range(3)
    ]


@pytest.mark.fault(61, caught_by="a dead letter is the original message")
def test_a_dead_letter_that_is_moved_back_is_loaded(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str], ask: Ask
) -> None:
    outputs = create_stack("xapi-etl-dev", **parameters)
    deployed()
    key = "section/7/video/late.jsonl"
    put(outputs["BucketName"], key, video(1))
    boto3.client("s3").delete_object(Bucket=outputs["BucketName"], Key=key)
    mapping = EventSourceMapping(outputs["EventSourceMappingId"])
    mapping.run()
    (letter,) = messages(outputs["DeadLetterQueueUrl"])
    # Does what aws sqs start-message-move-task does, which moto lacks.
    put(outputs["BucketName"], key, video(1))
    sqs: Any = boto3.client("sqs")
    sqs.send_message(QueueUrl=outputs["QueueUrl"], MessageBody=json.dumps(letter))
    mapping.run()
    assert ask("SELECT event_id FROM video_events FINAL") == [[event_id(1)]]


def test_updating_the_stack_keeps_the_code(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str]
) -> None:
    deploy_stack("xapi-etl-dev", **parameters)
    deployed()
    deploy_stack("xapi-etl-dev", **parameters, MemorySize="2048")
    found = boto3.client("lambda").get_function_configuration(FunctionName=NAME)
    assert found["MemorySize"] == 2048
    answer = boto3.client("lambda").invoke(FunctionName=NAME, Payload=b'{"health_check": true}')
    assert json.loads(answer["Payload"].read())["statusCode"] == 200


@pytest.mark.check("S17")
def test_code_can_come_from_a_bucket(
    functions: Functions, parameters: dict[str, str], packages: Packages
) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="releases")
    s3.put_object(Bucket="releases", Key="p.zip", Body=packages.zip(PYTHON).read_bytes())
    outputs = create_stack("s", **parameters, CodeBucket="releases", CodeKey="p.zip")
    assert outputs["NextStep"].endswith("out.json")
    answer = boto3.client("lambda").invoke(FunctionName=NAME, Payload=b'{"health_check": true}')
    assert json.loads(answer["Payload"].read())["statusCode"] == 200


@pytest.mark.check("S17")
def test_unhealthy_code_fails_the_deployment_and_can_be_rolled_back(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str], tmp_path: Path
) -> None:
    create_stack("xapi-etl-dev", **parameters)
    deployed()
    unhealthy = tmp_path / "unhealthy.zip"
    unhealthy.write_bytes(
        package_of("def handler(event, context): return {'healthy': False}", size=200_000)
    )
    done = deploy_sh("--deploy", NAME, "--zip", unhealthy)
    assert done.returncode == 1
    assert '"healthy": false' in done.stdout
    assert f"{NAME} is not healthy; ./deploy.sh --rollback {NAME}" in done.stderr

    done = deploy_sh("--rollback", NAME)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"{NAME} runs the code of version 2 again" in done.stdout
    assert '"healthy": true' in done.stdout


def test_a_function_that_raises_fails_the_deployment(
    functions: Functions, parameters: dict[str, str], tmp_path: Path
) -> None:
    create_stack("xapi-etl-dev", **parameters)
    (tmp_path / "broken.zip").write_bytes(package_of("import nothing_of_that_name"))
    done = deploy_sh("--deploy", NAME, "--zip", tmp_path / "broken.zip")
    assert done.returncode == 1
    assert "No module named 'nothing_of_that_name'" in done.stdout
    assert "is not healthy" in done.stderr


OTHER_NOTIFICATIONS = {
    "QueueConfigurations": [
        {
            "Id": "thumbnails",
            "QueueArn": "arn:aws:sqs:us-east-1:123456789012:thumbnails",
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".png"}]}},
        }
    ],
    "TopicConfigurations": [
        {
            "Id": "audit",
            "TopicArn": "arn:aws:sns:us-east-1:123456789012:audit",
            "Events": ["s3:ObjectRemoved:*"],
        }
    ],
}


def notifications(bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(
        boto3.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    )
    return {kind: found[kind] for kind in found if kind.endswith("Configurations")}


def test_connecting_an_existing_bucket_keeps_its_other_notifications(
    functions: Functions, deployed: Callable[[], None], parameters: dict[str, str], ask: Ask
) -> None:
    s3: Any = boto3.client("s3")
    s3.create_bucket(Bucket="platform")
    boto3.client("sqs").create_queue(QueueName="thumbnails")
    boto3.client("sns").create_topic(Name="audit")
    s3.put_bucket_notification_configuration(
        Bucket="platform",
        NotificationConfiguration=OTHER_NOTIFICATIONS,
        SkipDestinationValidation=True,
    )
    before = notifications("platform")
    assert {"thumbnails", "audit"} <= set(json.dumps(before).split('"'))
    outputs = create_stack("prod", **parameters, ExistingBucketName="platform")
    assert outputs["BucketIsConnected"] == "by deploy.sh --connect"
    deployed()

    with tcp_proxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        proxy.answers = CutAnswers(b"?notification", len("HTTP/1.1 200 OK\r\nDate"), times=1)
        done = deploy_sh("--connect", "platform", "prod", env={"AWS_ENDPOINT_URL": proxy.url})
    assert proxy.answers.fired == 1
    assert "cannot connect platform: read twice, its notifications differ" in done.stderr
    assert notifications("platform") == before

    for _ in range(2):
        done = deploy_sh("--connect", "platform", "prod")
        assert (done.returncode, done.stderr) == (0, "")
        assert "platform notifies the queue of prod" in done.stdout
        after = notifications("platform")
        assert after["TopicConfigurations"] == before["TopicConfigurations"]
        ours = [q for q in after["QueueConfigurations"] if q["Id"] != "thumbnails"]
        assert len(after["QueueConfigurations"]) == 3
        assert {q["QueueArn"] for q in ours} == {outputs["QueueArn"]}

    put("platform", "section/7/video/a.jsonl", video(1))
    EventSourceMapping(outputs["EventSourceMappingId"]).run()
    assert ask("SELECT event_id FROM video_events FINAL") == [[event_id(1)]]

    script, *arguments = outputs["BeforeDeletion"].split()
    assert script == "./deploy.sh"
    done = deploy_sh(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert notifications("platform") == before


def test_a_bucket_that_notifies_somebody_else_of_bundles_is_not_connected(
    functions: Functions, parameters: dict[str, str]
) -> None:
    s3: Any = boto3.client("s3")
    s3.create_bucket(Bucket="platform")
    boto3.client("sns").create_topic(Name="audit")
    topic = "arn:aws:sns:us-east-1:123456789012:audit"
    audit = {"Id": "audit", "TopicArn": topic, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket="platform",
        NotificationConfiguration={"TopicConfigurations": [audit]},
        SkipDestinationValidation=True,
    )
    before = notifications("platform")
    create_stack("prod", **parameters, ExistingBucketName="platform")
    done = deploy_sh("--connect", "platform", "prod")
    assert done.returncode == 1
    said = "deploy.sh: cannot connect platform: its notification 'audit' covers the same objects"
    assert done.stderr.startswith(said)
    assert notifications("platform") == before


def test_only_the_stacks_own_bucket_can_be_connected(
    functions: Functions, parameters: dict[str, str]
) -> None:
    outputs = create_stack("prod", **parameters)
    boto3.client("s3").create_bucket(Bucket="another")
    done = deploy_sh("--connect", "another", "prod")
    assert done.returncode == 1
    assert "deploy it with ExistingBucketName=another first" in done.stderr
    assert notifications("another") == {}
    done = deploy_sh("--connect", outputs["BucketName"], "prod")
    assert (done.returncode, done.stderr) == (0, "")
    assert "is part of the stack prod and is connected already" in done.stdout


def test_a_bucket_in_another_region_is_not_connected(
    functions: Functions, parameters: dict[str, str]
) -> None:
    """S3 would refuse its queue, after everything else is done."""
    boto3.client("s3", region_name="eu-central-1").create_bucket(
        Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    create_stack("prod", **parameters, ExistingBucketName="far")
    done = deploy_sh("--connect", "far", "prod")
    assert done.returncode == 1
    assert "far is in eu-central-1, and the stack prod in us-east-1" in done.stderr
    assert notifications("far") == {}


def test_a_stack_without_our_outputs_is_named(functions: Functions) -> None:
    topic = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation").create_stack(StackName="other", TemplateBody=json.dumps(topic))
    boto3.client("s3").create_bucket(Bucket="platform")
    done = deploy_sh("--connect", "platform", "other")
    assert done.returncode == 1
    assert "the stack other has no output QueueArn" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--deploy", "no-such-function"), "cannot read the function no-such-function"),
        (("--rollback", "no-such-function"), "cannot read the function no-such-function"),
        (("--connect", "no-such-bucket", "no-such-stack"), "cannot read the stack no-such-stack"),
        (
            ("--disconnect", "no-such-bucket-1", "s"),
            "cannot read the notifications of no-such-bucket-1",
        ),
    ],
)
def test_a_missing_function_stack_or_bucket_is_named(
    functions: Functions, arguments: tuple[str, ...], message: str
) -> None:
    done = deploy_sh(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"deploy.sh: {message}: An error occurred (")
    assert done.stderr.count("\n") == 1


class Payload:
    """A payload as boto3 returns it."""

    def __init__(self, text: bytes) -> None:
        self.text = text

    def read(self) -> bytes:
        return self.text


@pytest.mark.parametrize(
    ("payload", "failed"),
    [
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": null}', set()),
        (b"{}", set()),
        (b"null", set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}]}', {"a"}),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "c"}]}', {"a", "b"}),
        (b'{"batchItemFailures": [{"item": "a"}]}', {"a", "b"}),
        (b"not JSON", {"a", "b"}),
    ],
)
def test_our_event_source_mapping_follows_lambdas_rules(payload: bytes, failed: set[str]) -> None:
    ids = ["a", "b"]
    assert failed_messages(ids, {"Payload": Payload(payload)}, reports=True) == failed
    assert failed_messages(ids, {"Payload": Payload(payload)}, reports=False) == set()
    answer = {"Payload": Payload(payload), "FunctionError": "Unhandled"}
    assert failed_messages(ids, answer, reports=False) == {"a", "b"}
