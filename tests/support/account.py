"""An AWS account to deploy to: moto's, extended to run functions and to create what it lacks.

moto runs functions only in Docker. Here their code runs as in Lambda, in a process under Lambda's
own runtime client. The real `aws` and `deploy.sh` use it over HTTP.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.awslambda.models import LambdaFunction
from moto.cloudformation.models import ChangeSet
from moto.core.common_models import CloudFormationModel
from moto.s3.models import FakeBucket
from moto.secretsmanager.models import secretsmanager_backends
from moto.sqs.models import Queue, sqs_backends

from local.lambda_runtime import LambdaRuntime, RuntimeFailed
from tests.support import preloaded_aws
from tests.support.packages import Packages

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def _make_secret(name: str, properties: dict[str, Any], account: str, region: str) -> str:
    arn = secretsmanager_backends[account][region].create_secret(
        name=name,
        secret_string=properties["SecretString"],
        secret_binary=None,
        description=properties.get("Description"),
        tags=None,
        kms_key_id=None,
        client_request_token=None,
        replica_regions=[],
        force_overwrite=False,
    )
    return str(json.loads(arn)["ARN"])


def _set_queue_policy(name: str, properties: dict[str, Any], account: str, region: str) -> str:
    for url in properties["Queues"]:
        policy = json.dumps(properties["PolicyDocument"])
        sqs_backends[account][region].set_queue_attributes(
            url.rpartition("/")[2], {"Policy": policy}
        )
    return name


def _create_nothing(name: str, properties: dict[str, Any], account: str, region: str) -> str:
    return name


def _cloudformation_type(kind: str, make: Callable[[str, dict[str, Any], str, str], str]) -> type:
    """A resource type for moto's CloudFormation. `make` creates the resource and returns its id."""

    class Resource(CloudFormationModel):
        physical_resource_id = ""

        @staticmethod
        def cloudformation_name_type() -> str:
            return ""

        @staticmethod
        def cloudformation_type() -> str:
            return kind

        @classmethod
        def has_cfn_attr(cls, attr: str) -> bool:
            return attr == "Arn"

        def get_cfn_attribute(self, attribute_name: str) -> str:
            return f"arn:aws:made-up:{attribute_name}:{self.physical_resource_id}"

        @classmethod
        def create_from_cloudformation_json(
            cls,
            resource_name: str,
            cloudformation_json: dict[str, Any],
            account_id: str,
            region_name: str,
            **_: Any,
        ) -> Any:
            resource = cls()
            properties = cloudformation_json["Properties"]
            resource.physical_resource_id = make(resource_name, properties, account_id, region_name)
            return resource

        @classmethod
        def update_from_cloudformation_json(cls, original_resource: Any, *_: Any, **__: Any) -> Any:
            return original_resource

        @classmethod
        def delete_from_cloudformation_json(cls, *_: Any, **__: Any) -> None:
            """Does nothing: the account ends with the test."""

        def is_created(self) -> bool:
            return True

    return Resource


# moto looks for subclasses once, so these must exist as soon as this module is imported.
_TYPES = [
    _cloudformation_type("AWS::SecretsManager::Secret", _make_secret),
    _cloudformation_type("AWS::SQS::QueuePolicy", _set_queue_policy),
    _cloudformation_type("AWS::S3::BucketPolicy", _create_nothing),
    _cloudformation_type("AWS::Lambda::EventInvokeConfig", _create_nothing),
    _cloudformation_type("AWS::CloudWatch::Alarm", _create_nothing),
]


class Functions:
    """Runs the code of moto's functions, each in an environment that stays warm."""

    def __init__(self, folder: Path, packages: Packages, endpoint: dict[str, str]) -> None:
        self.folder = folder
        self.packages = packages
        self.endpoint = endpoint
        self._warm: dict[str, LambdaRuntime] = {}

    def invoke(self, function: Any, event: Any) -> tuple[str, bool, str]:
        """The answer, whether it is an error, and the log, as moto's own method returns them."""
        name = f"{function.function_name}-{function.code_sha_256}-{function.environment_vars}"
        if name not in self._warm:
            self._warm[name] = LambdaRuntime(
                self.packages.unpacked(self._package(function), PYTHON),
                self.packages.runtime(PYTHON),
                Path(tempfile.mkdtemp(dir=self.folder)),
                # A number in the template is text in a function's environment.
                {**self.endpoint, **{k: str(v) for k, v in function.environment_vars.items()}},
                handler=function.handler,
                function=function.function_name,
            )
        try:
            answer = self._warm[name].invoke(event)
        except RuntimeFailed as error:
            return json.dumps({"errorMessage": str(error)}), True, ""
        return json.dumps(answer.payload), answer.failed, ""

    def location(self, function: Any) -> str:
        """Where the code can be downloaded, as in Code.Location of GetFunction."""
        return self._package(function).as_uri()

    def close(self) -> None:
        for environment in self._warm.values():
            environment.close()

    def _package(self, function: Any) -> Path:
        path = self.folder / f"{re.sub(r'[^0-9a-zA-Z]', '', function.code_sha_256)}.zip"
        path.write_bytes(function.code_bytes)
        return path


@contextmanager
def running_functions(
    folder: Path, packages: Packages, endpoint: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Functions]:
    """Make moto run functions, and behave like AWS where it does not."""
    functions = Functions(folder, packages, endpoint)
    get_code = LambdaFunction.get_code

    def code_that_can_be_downloaded(self: Any) -> dict[str, Any]:
        answer = get_code(self)
        answer["Code"] = {"Location": functions.location(self), "RepositoryType": "S3"}
        return answer

    def update_configuration_only(
        cls: Any, /, original_resource: Any, cloudformation_json: Any, **_: Any
    ) -> Any:
        """CloudFormation changes the code only if the Code property in the template changed."""
        original_resource.update_configuration(cloudformation_json["Properties"])
        return original_resource

    create_bucket = FakeBucket.create_from_cloudformation_json

    def create_connected_bucket(cls: Any, name: str, template: Any, *where: Any, **_: Any) -> Any:
        """moto ignores the notifications that a template gives a bucket."""
        bucket = create_bucket(name, template, *where)
        configurations = template["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
        notifications = [
            {
                "Queue": one["Queue"],
                "Event": [one["Event"]],
                "Filter": {"S3Key": {"FilterRule": one["Filter"]["S3Key"]["Rules"]}},
            }
            for one in configurations
        ]
        bucket.set_notification_configuration({"QueueConfiguration": notifications})
        return bucket

    monkeypatch.setattr(
        FakeBucket, "create_from_cloudformation_json", classmethod(create_connected_bucket)
    )
    apply = ChangeSet.apply

    def apply_with_outputs(self: Any) -> None:
        """moto gives a stack no outputs if a change set created it."""
        apply(self)
        self.stack.template = self.template
        self.stack._parse_template()
        self.stack.output_map = self.stack._create_output_map()

    monkeypatch.setattr(ChangeSet, "apply", apply_with_outputs)
    monkeypatch.setattr(
        LambdaFunction, "_invoke_lambda", lambda self, event=None: functions.invoke(self, event)
    )
    monkeypatch.setattr(LambdaFunction, "get_code", code_that_can_be_downloaded)
    monkeypatch.setattr(
        LambdaFunction, "update_from_cloudformation_json", classmethod(update_configuration_only)
    )
    # moto would invoke the function at once, and not by Lambda's rules; instead, tests use
    # tests.support.event_source_mapping.
    monkeypatch.setattr(
        Queue,
        "lambda_event_source_mappings",
        property(lambda _: {}, lambda *_: None),
        raising=False,
    )
    try:
        yield functions
    finally:
        functions.close()


def package_of(handler: str, size: int = 0) -> bytes:
    """A package with only an index.py, and a filler of that many bytes."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as file:
        file.writestr("index.py", handler)
        file.writestr("filler", b" " * size)
    return package.getvalue()


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command with this project's aws and Python first in the PATH."""
    path = f"{preloaded_aws.folder()}:{BIN}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **more.pop("env", {})}
    return subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **more,
    )


def aws(*arguments: str) -> Any:
    """The aws command's answer; the test fails if the command does."""
    done = run("aws", *arguments, "--output", "json", cwd=ROOT)
    assert done.returncode == 0, f"aws {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout) if done.stdout.startswith(("{", "[", '"')) else done.stdout


def deploy_stack(stack: str, **parameters: str) -> dict[str, str]:
    """Deploy with the documented command; returns the stack's outputs."""
    pairs = [f"{name}={value}" for name, value in parameters.items()]
    aws(
        *("cloudformation", "deploy", "--template-file", "cloudformation.yaml"),
        *("--stack-name", stack, "--parameter-overrides", *pairs),
        *("--capabilities", "CAPABILITY_IAM"),
    )
    return _outputs(stack)


def create_stack(stack: str, **parameters: str) -> dict[str, str]:
    """Create a stack, without the pauses of `aws cloudformation deploy`; returns its outputs."""
    boto3.client("cloudformation").create_stack(
        StackName=stack,
        TemplateBody=(ROOT / "cloudformation.yaml").read_text(),
        Parameters=[
            {"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()
        ],
        Capabilities=["CAPABILITY_IAM"],
    )
    return _outputs(stack)


def _outputs(stack: str) -> dict[str, str]:
    (found,) = boto3.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    assert found["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def deploy_sh(*arguments: str | Path, code: int = 0, **more: Any) -> Any:
    """Run ./deploy.sh from another folder than its own; it must end with this code, and complain
    if that is an error.
    """
    done = run(ROOT / "deploy.sh", *arguments, cwd="/", **more)
    assert (done.returncode, bool(done.stderr)) == (code, bool(code)), done.stdout + done.stderr
    return done
