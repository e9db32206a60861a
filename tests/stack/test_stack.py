"""The stack, deployed with the real aws command: an uploaded bundle becomes rows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote_plus
from uuid import uuid4

import boto3
import pytest
import requests

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER, Template, run_all
from tests.faults.tcp_proxy import CutAnswers, tcp_proxy
from tests.support.account import (
    PYTHON,
    create_stack,
    deploy_sh,
    deploy_stack,
    package_of,
    running_functions,
)
from tests.support.event_source_mapping import EventSourceMapping
from tests.support.packages import HERE, Packages
from tests.support.samples import event_id, video

pytestmark = pytest.mark.slow

NAME = "dev-xapi-etl-processor"
Outputs = dict[str, str]
Stored = Callable[[int], list[str]]


@pytest.fixture(scope="module", autouse=True)
def account(
    packages: Packages, aws_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """An account that runs functions, and is empty when the first test begins."""
    packages.interpreter(PYTHON)
    if HERE != "x86_64":
        pytest.skip("moto creates every function of a stack for x86_64")
    reset = f"{aws_environment['AWS_ENDPOINT_URL']}/moto-api/reset"
    boto3.client("s3")  # creates boto3's default session here, not in a later test
    requests.post(reset, timeout=30)
    folder = tmp_path_factory.mktemp("functions")
    with (
        pytest.MonkeyPatch.context() as patch,
        running_functions(folder, packages, aws_environment, patch),
    ):
        yield
    requests.post(reset, timeout=30)


@pytest.fixture(scope="module")
def database(clickhouse: ClickHouseServer, template: Template) -> Iterator[str]:
    """The database of all stacks; each test has a section of its own."""
    name = f"stack_{uuid4().hex[:12]}"
    run_all(clickhouse, template.creates, template.database, name)
    yield name
    clickhouse.engine.query(f"DROP DATABASE {name}")


@pytest.fixture(scope="module")
def stored(clickhouse: ClickHouseServer, database: str) -> Stored:
    """The ids of the events that are stored of a section."""

    def stored(section: int) -> list[str]:
        sql = f"SELECT event_id FROM {database}.video_events FINAL WHERE section_id = {section}"
        found: list[str] = clickhouse.engine.query(f"{sql} ORDER BY 1", "CSV").bytes().split()
        return [json.loads(name) for name in found]

    return stored


@pytest.fixture(scope="module")
def parameters(account: None, clickhouse: ClickHouseServer, database: str) -> dict[str, str]:
    """The parameters of a stack for the tests' ClickHouse."""
    return {
        "ClickHouseHost": "127.0.0.1",
        "ClickHousePort": str(clickhouse.port),
        "ClickHouseSecure": "false",
        "ClickHouseDatabase": database,
        "ClickHouseUsername": USER,
        "ClickHousePassword": PASSWORD,
        "PythonVersion": f"python{PYTHON}",
    }


@pytest.fixture(scope="module")
def deployed(parameters: dict[str, str], packages: Packages) -> Outputs:
    """The outputs of the stack xapi-etl-dev, which has the package; its queues are empty."""
    outputs = create_stack("xapi-etl-dev", **parameters)
    give_code(NAME, packages)
    # The test event that S3 sends to a new queue.
    EventSourceMapping(outputs["EventSourceMappingId"]).run()
    return outputs


def put(bucket: str, key: str, *statements: dict[str, Any]) -> None:
    body = "".join(json.dumps(statement) + "\n" for statement in statements)
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body.encode())


def invoked(function: str, payload: dict[str, Any]) -> Any:
    """What the function answers."""
    answer = boto3.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload))
    return json.loads(answer["Payload"].read())


def give_code(function: str, packages: Packages) -> None:
    boto3.client("lambda").update_function_code(
        FunctionName=function, ZipFile=packages.zip(PYTHON).read_bytes()
    )


def messages(url: str) -> list[tuple[Any, str]]:
    """The visible messages of a queue, parsed, and why they are dead letters; empties the queue."""
    found: list[tuple[Any, str]] = []
    sqs: Any = boto3.client("sqs")
    options = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["reason"]}
    while more := sqs.receive_message(QueueUrl=url, **options).get("Messages"):
        for message in more:
            reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "")
            found.append((json.loads(message["Body"]), reason))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def keys_of(message: Any) -> list[str]:
    return [unquote_plus(record["s3"]["object"]["key"]) for record in message["Records"]]


@pytest.mark.ci
def test_the_stack_needs_only_a_host_and_a_password_and_shows_the_next_step() -> None:
    name = "bare-xapi-etl-processor"
    outputs = deploy_stack(
        "xapi-etl-bare",
        Environment="bare",
        ClickHouseHost="your-host",
        ClickHousePassword="your-password",
        PythonVersion=f"python{PYTHON}",
    )
    assert outputs["NextStep"] == f"./deploy.sh --deploy {name}"
    assert outputs["FunctionName"] == name
    configuration = boto3.client("lambda").get_function_configuration(FunctionName=name)
    assert "your-password" not in json.dumps(configuration)
    assert invoked(name, {})["errorMessage"] == f"no code yet: run ./deploy.sh --deploy {name}"


@pytest.mark.ci
def test_messages_that_arrive_before_the_code_wait_for_it(
    parameters: dict[str, str], packages: Packages, stored: Stored
) -> None:
    outputs = create_stack("xapi-etl-early", **parameters, Environment="early")
    put(outputs["BucketName"], "section/1/video/a.jsonl", video(1))
    mapping = EventSourceMapping(outputs["EventSourceMappingId"])
    mapping.run_once()
    assert stored(1) == []
    give_code(outputs["FunctionName"], packages)
    mapping.run()
    assert stored(1) == [event_id(1)]


@pytest.mark.ci
@pytest.mark.long
@pytest.mark.fault(7, 8, caught_by="partial batch response; dead letter")
def test_bundles_become_rows_and_only_bad_messages_become_dead_letters(
    deployed: Outputs, database: str, clickhouse: ClickHouseServer, stored: Stored
) -> None:
    bucket, keys = deployed["BucketName"], [f"section/2/video/é +%2B {n}.jsonl" for n in range(12)]
    for number, key in enumerate(keys):
        put(bucket, key, video(number), video(1000))
    put(bucket, "section/2/video/notes.txt", video(2000))
    put(bucket, "elsewhere/section/2/video/a.jsonl", video(2001))
    damaged = "section/2/video/cut.jsonl.gz"
    boto3.client("s3").put_object(Bucket=bucket, Key=damaged, Body=b"\x1f\x8b\x08 no gzip")
    sqs: Any = boto3.client("sqs")
    sqs.send_message(QueueUrl=deployed["QueueUrl"], MessageBody='"no event"')

    deliveries = EventSourceMapping(deployed["EventSourceMappingId"]).run()

    deleted = [name for delivery in deliveries for name in delivery.deleted]
    # The bundles and the dead letters.
    assert len(deleted) == len(set(deleted)) == 12 + 2
    dead = messages(deployed["DeadLetterQueueUrl"])
    (no_gzip, why_gzip), (no_event, why_event) = sorted(dead, key=lambda one: str(one[0]) < "{")
    assert (no_event, why_event) == ("no event", "not an S3 event: a JSON object is needed")
    assert keys_of(no_gzip) == [damaged]
    assert why_gzip.startswith(f"s3://{bucket}/{damaged}: gzip stream is damaged")
    assert messages(deployed["QueueUrl"]) == []
    assert stored(2) == [event_id(number) for number in (*range(12), 1000)]
    counted = (
        f"SELECT count(), sum(lines) FROM {database}.processed_files FINAL"
        " WHERE key LIKE 'section/2/%'"
    )
    assert clickhouse.engine.query(counted, "CSV").bytes() == b"12,24\n"
    # Five deliveries, and no message that had succeeded was delivered again.
    assert [len(one.ids) - len(one.deleted) for one in deliveries] == [2, 2, 2, 2, 0]
    assert len(deliveries[-1].ids) == 2


@pytest.mark.ci
def test_history_goes_through_a_queue_of_its_own(deployed: Outputs, stored: Stored) -> None:
    for number in range(3):
        key = f"section/3/video/2024-0{number + 1}-01T12-00-00Z_1.jsonl"
        put(deployed["BucketName"], key, video(number))
    assert len(messages(deployed["QueueUrl"])) == 3
    request = {"mode": "bulk", "engine": "queue", "section_id": 3}
    body = json.loads(invoked(NAME, request)["body"])
    assert (body["complete"], body["files_sent"], body["messages"]) == (True, 3, 3)
    deliveries = EventSourceMapping(deployed["BackfillSourceId"]).run()
    assert [len(delivery.deleted) for delivery in deliveries] == [1, 1, 1]
    assert stored(3) == [event_id(number) for number in range(3)]


@pytest.mark.ci
@pytest.mark.check("S17")
def test_updating_the_stack_keeps_the_code_and_another_stacks_code_comes_from_a_bucket(
    deployed: Outputs, parameters: dict[str, str]
) -> None:
    deploy_stack("xapi-etl-dev", **parameters, MemorySize="2048")
    found = boto3.client("lambda").get_function_configuration(FunctionName=NAME)
    assert found["MemorySize"] == 2048
    assert invoked(NAME, {"health_check": True})["statusCode"] == 200

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="releases")
    code = package_of("def handler(event, context): return 'from a bucket'")
    s3.put_object(Bucket="releases", Key="p.zip", Body=code)
    where = {"CodeBucket": "releases", "CodeKey": "p.zip"}
    outputs = create_stack("released", **parameters, **where, Environment="released")
    assert outputs["NextStep"].endswith("out.json")
    assert invoked(outputs["FunctionName"], {}) == "from a bucket"


@pytest.mark.ci
@pytest.mark.check("S17")
def test_code_that_does_not_start_fails_the_deployment_and_can_be_rolled_back(
    deployed: Outputs, packages: Packages
) -> None:
    deploy_sh("--deploy", NAME, "--zip", packages.zip(PYTHON))
    broken = packages.folder / "broken.zip"
    broken.write_bytes(package_of("import nothing_of_that_name", size=200_000))
    done = deploy_sh("--deploy", NAME, "--zip", broken, code=1)
    assert "No module named 'nothing_of_that_name'" in done.stdout
    assert f"{NAME} is not healthy; ./deploy.sh --rollback {NAME}" in done.stderr

    done = deploy_sh("--rollback", NAME)
    assert f"{NAME} runs the code of version " in done.stdout
    assert '"healthy": true' in done.stdout
    assert PASSWORD not in done.stdout


QUEUE_ARN = "arn:aws:sqs:us-east-1:123456789012:queue"


def topic(name: str) -> str:
    return f"arn:aws:sns:us-east-1:123456789012:{name}"


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
        {"Id": "audit", "TopicArn": topic("audit"), "Events": ["s3:ObjectRemoved:*"]}
    ],
}


def notify(bucket: str, **configurations: Any) -> None:
    """Give the bucket these notifications; their topics are created."""
    for one in configurations.get("TopicConfigurations", ()):
        boto3.client("sns").create_topic(Name=one["TopicArn"].rpartition(":")[2])
    s3: Any = boto3.client("s3")
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration=configurations,
        SkipDestinationValidation=True,
    )


def notifications(bucket: str) -> dict[str, Any]:
    found: dict[str, Any] = dict(
        boto3.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    )
    return {kind: found[kind] for kind in found if kind.endswith("Configurations")}


@pytest.mark.ci
@pytest.mark.long
def test_connecting_an_existing_bucket_keeps_its_other_notifications(
    parameters: dict[str, str],
) -> None:
    s3: Any = boto3.client("s3")
    s3.create_bucket(Bucket="platform")
    boto3.client("sqs").create_queue(QueueName="thumbnails")
    notify("platform", **OTHER_NOTIFICATIONS)
    before = notifications("platform")
    assert {"thumbnails", "audit"} <= set(json.dumps(before).split('"'))
    more = {"Environment": "connected", "ExistingBucketName": "platform"}
    outputs = create_stack("connected", **parameters, **more)
    assert outputs["BucketIsConnected"] == "by deploy.sh --connect"

    with tcp_proxy(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])) as proxy:
        proxy.answers = CutAnswers(b"?notification", len("HTTP/1.1 200 OK\r\nDate"), times=1)
        there = {"AWS_ENDPOINT_URL": proxy.url}
        done = deploy_sh("--connect", "platform", "connected", code=1, env=there)
    assert proxy.answers.fired == 1
    assert "cannot connect platform: read twice, its notifications differ" in done.stderr
    assert notifications("platform") == before

    for _ in range(2):
        done = deploy_sh("--connect", "platform", "connected")
        assert "platform notifies the queue of connected" in done.stdout
        after = notifications("platform")
        assert after["TopicConfigurations"] == before["TopicConfigurations"]
        ours = [q for q in after["QueueConfigurations"] if q["Id"] != "thumbnails"]
        assert len(after["QueueConfigurations"]) == 3
        assert {q["QueueArn"] for q in ours} == {outputs["QueueArn"]}

    messages(outputs["QueueUrl"])  # The test event that S3 sends to a new queue.
    put("platform", "section/7/video/a.jsonl", video(1))
    ((uploaded, _),) = messages(outputs["QueueUrl"])
    assert keys_of(uploaded) == ["section/7/video/a.jsonl"]

    script, *arguments = outputs["BeforeDeletion"].split()
    assert script == "./deploy.sh"
    deploy_sh(*arguments)
    assert notifications("platform") == before


def small_stack(name: str, bucket: str) -> None:
    """A stack of one topic, with our outputs if it has a bucket."""
    outputs = {"BucketName": bucket, "QueueArn": QUEUE_ARN, "BundlePrefix": "section/"}
    template = {
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
        "Outputs": {output: {"Value": value} for output, value in outputs.items() if bucket},
    }
    boto3.client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))


@pytest.mark.ci
def test_a_bucket_that_notifies_somebody_else_of_bundles_is_not_connected() -> None:
    boto3.client("s3").create_bucket(Bucket="taken")
    audit = {"Id": "audit", "TopicArn": topic("all"), "Events": ["s3:ObjectCreated:*"]}
    notify("taken", TopicConfigurations=[audit])
    before = notifications("taken")
    small_stack("taking", "taken")
    done = deploy_sh("--connect", "taken", "taking", code=1)
    said = "deploy.sh: cannot connect taken: its notification 'audit' covers the same objects"
    assert done.stderr.startswith(said)
    assert notifications("taken") == before


@pytest.mark.ci
def test_what_cannot_be_connected_or_deployed_to_is_named(deployed: Outputs) -> None:
    boto3.client("s3").create_bucket(Bucket="another")
    # S3 would refuse a queue of another region, after everything else is done.
    boto3.client("s3", region_name="eu-central-1").create_bucket(
        Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    small_stack("near", "far")
    small_stack("other", "")
    failed = "An error occurred ("
    for arguments, message in {
        "--connect another xapi-etl-dev": "deploy it with ExistingBucketName=another first",
        "--connect far near": "far is in eu-central-1, and the stack near in us-east-1",
        "--connect bucket other": "the stack other has no output QueueArn",
        "--deploy no-such-function": f"cannot read the function no-such-function: {failed}",
        "--connect no-bucket no-stack": f"cannot read the stack no-stack: {failed}",
        "--disconnect no-bucket s": f"cannot read the notifications of no-bucket: {failed}",
    }.items():
        done = deploy_sh(*arguments.split(), code=1)
        assert message in done.stderr, arguments
        assert done.stderr.startswith("deploy.sh: "), arguments
        assert done.stderr.count("\n") == 1, arguments
    assert notifications("far") == notifications("another") == {}
    done = deploy_sh("--connect", deployed["BucketName"], "xapi-etl-dev")
    assert "is part of the stack xapi-etl-dev and is connected already" in done.stdout
