"""deploy.sh and the function: what it waits for, compares and refuses, and what it restores."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend, LambdaFunction

from tests.account import ROOT, deploy_sh, package_of, run

pytestmark = pytest.mark.slow

NAME = "dev-xapi-etl-processor"
ROLE = {
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "x"}}]
}
LARGE = 200_000
"""Bytes of a package that is no placeholder."""


class Busy(LambdaClientError):
    """Lambda's answer while a function is created or updated."""

    code = 409

    def __init__(self) -> None:
        super().__init__("ResourceConflictException", "An update is in progress")


class Account:
    """What AWS does and moto does not: functions that take time to become active and to update."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reads_until_active = 0
        self.reads_until_updated = 0
        self.update_takes_reads = 0
        self.answer: Any = {"healthy": True}
        self.another_deploys = False
        self.invoked: list[str] = []
        """The hash of the code that each invocation ran."""

    def create(self, code: bytes, runtime: str = "python3.13", arch: str = "x86_64") -> None:
        role = boto3.client("iam").create_role(
            RoleName="r", AssumeRolePolicyDocument=json.dumps(ROLE)
        )
        boto3.client("lambda").create_function(
            FunctionName=NAME,
            Runtime=runtime,
            Architectures=[arch],
            Handler="index.handler",
            Role=role["Role"]["Arn"],
            Code={"ZipFile": code},
        )

    def publish(self, code: bytes, runtime: str = "python3.13") -> None:
        """Make this the running code, and a version."""
        client = boto3.client("lambda")
        client.update_function_code(FunctionName=NAME, ZipFile=code)
        client.update_function_configuration(
            FunctionName=NAME,
            Runtime=runtime,
        )
        client.publish_version(FunctionName=NAME)

    @property
    def running(self) -> str:
        found = boto3.client("lambda").get_function_configuration(FunctionName=NAME)
        return str(found["CodeSha256"])

    @property
    def versions(self) -> list[str]:
        """The code of each published version, in their order."""
        found = boto3.client("lambda").list_versions_by_function(FunctionName=NAME)["Versions"]
        return [version["CodeSha256"] for version in found if version["Version"] != "$LATEST"]


def _take_time_to_update(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    update, publish = LambdaFunction.update_function_code, LambdaBackend.publish_version

    def update_function_code(self: Any, body: Any) -> Any:
        if account.reads_until_active:
            raise Busy
        if account.another_deploys:
            body = {"ZipFile": base64.b64encode(package_of("another = 1", LARGE)).decode()}
        account.reads_until_updated = account.update_takes_reads
        return update(self, body)

    def publish_version(self: Any, *given: Any, **more: Any) -> Any:
        if account.reads_until_updated:
            raise Busy
        return publish(self, *given, **more)

    def invoke(self: Any, event: Any = None) -> tuple[str, bool, str]:
        assert event == {"health_check": True}
        account.invoked.append(self.code_sha_256)
        updated = not account.reads_until_updated
        return json.dumps(account.answer if updated else "the previous code answers"), False, ""

    monkeypatch.setattr(LambdaFunction, "update_function_code", update_function_code)
    monkeypatch.setattr(LambdaFunction, "_invoke_lambda", invoke)
    monkeypatch.setattr(LambdaBackend, "publish_version", publish_version)


def _tell_the_state(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration, code = LambdaFunction.get_configuration, LambdaFunction.get_code

    def get_configuration(self: Any, *given: Any, **more: Any) -> dict[str, Any]:
        found = configuration(self, *given, **more)
        if account.reads_until_active:
            found["State"] = "Pending"
        if account.reads_until_updated:
            found["LastUpdateStatus"] = "InProgress"
        return found

    def get_code(self: Any) -> dict[str, Any]:
        found = code(self)
        account.reads_until_active = max(0, account.reads_until_active - 1)
        account.reads_until_updated = max(0, account.reads_until_updated - 1)
        path = account.folder / f"{hashlib.sha256(self.code_bytes).hexdigest()}.zip"
        path.write_bytes(self.code_bytes)
        return {**found, "Code": {"Location": path.as_uri(), "RepositoryType": "S3"}}

    monkeypatch.setattr(LambdaFunction, "get_configuration", get_configuration)
    monkeypatch.setattr(LambdaFunction, "get_code", get_code)


@pytest.fixture
def account(
    aws_environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Account]:
    """An account without functions."""
    account = Account(tmp_path)
    reset = f"{aws_environment['AWS_ENDPOINT_URL']}/moto-api/reset"
    _take_time_to_update(account, monkeypatch)
    _tell_the_state(account, monkeypatch)
    boto3.client("s3")  # creates boto3's default session here, not in a later test
    requests.post(reset, timeout=30)
    yield account
    requests.post(reset, timeout=30)


def hash_of(code: bytes) -> str:
    """A package's hash as Lambda shows it."""
    return base64.b64encode(hashlib.sha256(code).digest()).decode()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (path := tmp_path / "new.zip").write_bytes(package_of("new = 1", LARGE))
    return path


OLD, OLDER = package_of("old = 1", LARGE), package_of("older = 1", LARGE)
PLACEHOLDER = package_of("raise RuntimeError")


@pytest.mark.check("S17")
def test_code_is_updated_kept_as_a_version_and_checked_each_when_aws_is_ready(
    account: Account, package: Path
) -> None:
    account.create(OLD)
    account.reads_until_active, account.update_takes_reads = 1, 2
    done = deploy_sh("--deploy", NAME, "--zip", package)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{NAME} runs the new code, version 2\n" in done.stdout
    assert done.stdout.endswith(f"{NAME} is healthy\n")
    new = hash_of(package.read_bytes())
    assert account.running == new
    assert account.versions == [hash_of(OLD), new]
    assert account.invoked == [new]


def test_code_of_someone_else_is_noticed(account: Account, package: Path) -> None:
    account.create(OLD)
    account.another_deploys = True
    done = deploy_sh("--deploy", NAME, "--zip", package)
    assert done.returncode == 1
    message = f"{NAME} has other code than {package}: someone else is deploying at the same time\n"
    assert done.stderr == f"deploy.sh: {message}"
    assert account.invoked == []


@pytest.mark.parametrize("arguments", [("--python", "3.12"), ("--arch", "arm64")])
def test_a_package_for_another_python_or_architecture_is_not_deployed(
    account: Account, arguments: tuple[str, str]
) -> None:
    account.create(OLD)
    done = deploy_sh("--deploy", NAME, *arguments)
    assert done.returncode == 1
    assert done.stderr == (
        f"deploy.sh: {NAME} runs Python 3.13 on x86_64:"
        " change the stack's PythonVersion or Architecture first\n"
    )
    assert account.running == hash_of(OLD)


def test_a_package_is_built_for_the_functions_python_and_architecture(
    account: Account, tmp_path: Path
) -> None:
    account.create(OLD, "python3.12", "arm64")
    # A copy, so that no other test's package is replaced.
    for name in ("deployment", "xapi_etl_processor"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "deploy.sh", tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    done = run(tmp_path / "deploy.sh", "--deploy", NAME, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "xapi-etl-processor.zip for Python 3.12 on arm64" in done.stdout
    assert account.running == hash_of((tmp_path / "xapi-etl-processor.zip").read_bytes())


def test_a_rollback_skips_placeholders_and_versions_for_another_python(account: Account) -> None:
    account.create(PLACEHOLDER)
    account.publish(PLACEHOLDER)
    account.publish(OLD)
    account.publish(OLDER, "python3.12")
    running = package_of("running = 1", LARGE)
    account.publish(running)
    # The same code again, with other settings.
    boto3.client("lambda").update_function_configuration(FunctionName=NAME, MemorySize=512)
    boto3.client("lambda").publish_version(FunctionName=NAME)
    assert account.versions[-2:] == [hash_of(running)] * 2
    account.update_takes_reads = 1
    done = deploy_sh("--rollback", NAME)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{NAME} runs the code of version 2 again\n" in done.stdout
    assert account.running == hash_of(OLD)

    done = deploy_sh("--rollback", NAME)
    message = f"{NAME} has no earlier version for Python 3.13 on x86_64: check out the older code,"
    message += f" and run ./deploy.sh --deploy {NAME}"
    assert (done.returncode, done.stderr) == (1, f"deploy.sh: {message}\n")
    assert account.running == hash_of(OLD)


def test_a_rollback_goes_back_by_the_number_of_versions_in_whatever_order_aws_lists_them(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.create(PLACEHOLDER)
    versions = [package_of(f"version = {number}", LARGE) for number in range(1, 11)]
    for code in versions:
        account.publish(code)
    listed = LambdaBackend.list_versions_by_function

    def as_texts(self: Any, name: str) -> Any:
        """In the order of 9, 8, ... 2, 10, 1: AWS promises none."""
        return sorted(listed(self, name), key=lambda one: str(one.version), reverse=True)

    monkeypatch.setattr(LambdaBackend, "list_versions_by_function", as_texts)
    done = deploy_sh("--rollback", NAME)
    assert f"{NAME} runs the code of version 9 again\n" in done.stdout
    assert account.running == hash_of(versions[8])


def test_a_rollback_of_code_that_is_no_version_restores_the_newest_one(account: Account) -> None:
    account.create(PLACEHOLDER)
    account.publish(OLDER)
    account.publish(OLD)
    boto3.client("lambda").update_function_code(
        FunctionName=NAME, ZipFile=package_of("by_hand = 1", LARGE)
    )
    account.answer = {"statusCode": 200, "body": '{"healthy": "true"}'}
    done = deploy_sh("--rollback", NAME)
    assert done.returncode == 1
    assert account.running == hash_of(OLD)
    assert done.stderr == (
        f"deploy.sh: {NAME} is not healthy;"
        f" ./deploy.sh --rollback {NAME} goes back one more version\n"
    )
