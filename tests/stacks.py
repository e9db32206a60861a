"""The stack in a second CloudFormation engine, beside moto's: MiniStack.

It reads templates, checks rules and retains resources by code of its own. `make stacks` runs it in
an environment of its own.

MiniStack 1.5.33 has no metric math, so alarms that need it are left out (tests/stack/test_alarms.py
has them), and it does not join lists in conditions. It runs no functions here.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.faults.killable import wait_until
from tests.support.real_server import free_port

ROOT = Path(__file__).parent.parent
LAST_VERSION = "0.1.0"
"""The version from which stacks are updated."""

SECONDS = 60
"""How long a server or a stack may take; each takes a few."""

_ALARM = re.compile(r"^  (\w+Alarm):\n(?:    .*\n|\n)+?(?=  \w|  #|\S)", re.MULTILINE)
_GIVEN = {"ClickHouseHost": "clickhouse.example.org", "ClickHousePassword": "secret"}


def main(ministack: str) -> None:
    """Do all of it with this `ministack` command; raises AssertionError for what is wrong."""
    now = _readable((ROOT / "cloudformation.yaml").read_text())
    before = _of_the_last_version()
    with _running(ministack):
        for step in (
            _a_stack_is_created_and_deleted,
            _parameters_that_contradict_each_other_are_refused,
            _a_stack_that_cannot_be_created_leaves_nothing,
        ):
            step(now)
            print(step.__name__.strip("_").replace("_", " "), flush=True)
        if before:
            _a_stack_of_the_last_version_is_updated(_readable(before), now)
            print("a stack of the last version is updated", flush=True)
        else:
            print("NOT TESTED: an update from the last version; git fetch --unshallow", flush=True)


def _a_stack_is_created_and_deleted(template: str) -> None:
    outputs = _create("new", template, **_GIVEN, LearnerIds="pseudonyms")
    bucket, queue = outputs["BucketName"], outputs["QueueArn"]
    notified = boto3.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    assert {one["QueueArn"] for one in notified["QueueConfigurations"]} == {queue}
    attributes = boto3.client("sqs").get_queue_attributes(
        QueueUrl=outputs["QueueUrl"], AttributeNames=["All"]
    )["Attributes"]
    assert json.loads(attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": outputs["DeadLetterQueueArn"],
        "maxReceiveCount": 120,
    }
    function = boto3.client("lambda").get_function_configuration(
        FunctionName=outputs["FunctionName"]
    )
    variables = function["Environment"]["Variables"]
    assert variables["LEARNER_KEY_SECRET_ARN"] == outputs["LearnerKeySecretArn"]
    assert (function["Handler"], function.get("Layers", [])) == ("index.handler", [])
    sources = boto3.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert {one["BatchSize"] for one in sources} == {1, 100}
    _delete("new")
    assert _buckets() == {bucket}
    assert len(_secrets()) == 1, "the learners' key outlives the stack, and the password does not"
    assert not boto3.client("lambda").list_functions()["Functions"]
    assert not boto3.client("sqs").list_queues().get("QueueUrls")
    boto3.client("s3").delete_bucket_policy(Bucket=bucket)  # fails if it went with the stack
    _empty_account()


def _parameters_that_contradict_each_other_are_refused(template: str) -> None:
    for wrong in (
        {"SubnetIds": "subnet-1"},
        {"CodeBucket": "releases"},
        {"ClickHousePassword": ""},
    ):
        with pytest.raises(ClientError, match="rule "):
            _create("wrong", template, **{**_GIVEN, **wrong})


def _a_stack_that_cannot_be_created_leaves_nothing(template: str) -> None:
    layer = "arn:aws:lambda:us-east-1:123456789012:layer:gone:1"
    with pytest.raises(_StackFailed, match="[Ll]ayer"):
        _create("failing", template, **_GIVEN, LearnerIds="pseudonyms", LayerArns=layer)
    assert _buckets() == set()
    # An update that fails may have used the key already, and CloudFormation cannot tell them apart.
    assert len(_secrets()) == 1
    _empty_account()
    _delete("failing")


def _a_stack_of_the_last_version_is_updated(before: str, now: str) -> None:
    first = _create("old", before, **_GIVEN)
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as package:
        package.writestr("index.py", "def handler(event, context): ...")
    functions = boto3.client("lambda")
    deployed = functions.update_function_code(
        FunctionName=first["FunctionName"], ZipFile=code.getvalue()
    )
    known = re.findall(r"^  (\w+):\n    Type: ", now.partition("\nRules:")[0], re.MULTILINE)
    boto3.client("cloudformation").update_stack(
        StackName="old",
        TemplateBody=now,
        Parameters=[
            {"ParameterKey": name, "UsePreviousValue": True} for name in _GIVEN if name in known
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    outputs = _ended("old", "UPDATE_COMPLETE")
    for name in ("FunctionName", "BucketName", "QueueArn", "DeadLetterQueueArn"):
        assert outputs[name] == first[name], name
    function = functions.get_function_configuration(FunctionName=outputs["FunctionName"])
    assert function["CodeSha256"] == deployed["CodeSha256"], "the deployed code was replaced"
    assert "S3_CONCURRENCY" not in function["Environment"]["Variables"]
    _delete("old")


class _StackFailed(Exception):
    """The stack's events say why."""


def _create(name: str, template: str, **parameters: str) -> dict[str, str]:
    """Create a stack; returns its outputs."""
    boto3.client("cloudformation").create_stack(
        StackName=name,
        TemplateBody=template,
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    return _ended(name, "CREATE_COMPLETE")


def _ended(name: str, wanted: str) -> dict[str, str]:
    """The outputs of a stack that reaches this state; raises _StackFailed if it reaches another."""
    client = boto3.client("cloudformation")

    def state() -> Any:
        (stack,) = client.describe_stacks(StackName=name)["Stacks"]
        return None if stack["StackStatus"].endswith("IN_PROGRESS") else stack

    stack = wait_until(state, SECONDS, f"stack {name}")
    if stack["StackStatus"] != wanted:
        events = client.describe_stack_events(StackName=name)["StackEvents"]
        why = [
            one.get("ResourceStatusReason") for one in events if "FAILED" in one["ResourceStatus"]
        ]
        raise _StackFailed(f"{name} is {stack['StackStatus']}: {why}")
    return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", ())}


def _delete(name: str) -> None:
    client = boto3.client("cloudformation")
    client.delete_stack(StackName=name)

    def gone() -> bool:
        try:
            (stack,) = client.describe_stacks(StackName=name)["Stacks"]
        except ClientError:
            return True
        assert stack["StackStatus"] != "DELETE_FAILED"
        return bool(stack["StackStatus"] == "DELETE_COMPLETE")

    wait_until(gone, SECONDS, f"the deletion of {name}")


def _buckets() -> set[str]:
    return {one["Name"] for one in boto3.client("s3").list_buckets()["Buckets"]}


def _secrets() -> set[str]:
    return {one["Name"] for one in boto3.client("secretsmanager").list_secrets()["SecretList"]}


def _empty_account() -> None:
    for bucket in _buckets():
        boto3.client("s3").delete_bucket(Bucket=bucket)
    for secret in _secrets():
        boto3.client("secretsmanager").delete_secret(
            SecretId=secret, ForceDeleteWithoutRecovery=True
        )


def _readable(template: str) -> str:
    """The template without what MiniStack does not know: see above."""
    math = [m[1] for m in _ALARM.finditer(template) if "      Metrics:\n" in m[0]]
    template = _ALARM.sub(lambda m: "" if m[1] in math else m[0], template)
    for name in math:
        template = re.sub(rf'^.*\$\{{{name}(\.Arn)?\}}",?\n', "", template, flags=re.MULTILINE)
    return re.sub(r'!Join \["", (!Ref \w+)\]', r"!Select [0, \1]", template)


def _of_the_last_version() -> str:
    """The template before the next version was begun; '' if git does not know it."""
    text = f'__version__ = "{LAST_VERSION}"'
    after = _git("log", "--format=%H", f"-S{text}", "--", "xapi_etl_processor/__init__.py").split()
    # The commit that ended it, and the one that began it.
    return _git("show", f"{after[0]}^:cloudformation.yaml") if len(after) > 1 else ""


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return done.stdout


@contextmanager
def _running(ministack: str) -> Iterator[None]:
    port = free_port()
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "123456789012",  # MiniStack takes it for the account
        "AWS_SECRET_ACCESS_KEY": "unused",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [ministack],
            env={**os.environ, "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0"},
            stdout=log,
            stderr=log,
        )
        try:

            def answers() -> bool:
                assert process.poll() is None, f"{ministack} ended at once"
                with socket.socket() as tried:
                    return tried.connect_ex(("127.0.0.1", port)) == 0

            wait_until(answers, SECONDS, "MiniStack")
            yield
        finally:
            process.terminate()
            process.wait(SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
