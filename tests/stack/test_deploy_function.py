"""deploy.sh and the function: what it waits for, compares and refuses, and what it restores."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
import requests
import trustme
from moto.awslambda.exceptions import LambdaClientError
from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.awslambda.responses import LambdaResponse

from local.lifetime import POLL_SECONDS
from tests.support.account import ROOT, deploy_sh, package_of, run

pytestmark = pytest.mark.slow

NAME = "dev-xapi-etl-processor"
ROLE = {
    "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "x"}}]
}
OURS = {"CLICKHOUSE_HOST": "clickhouse.example.org"}
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
        self.unhealthy: set[str] = set()
        """The hashes of code whose health check fails."""
        self.idle = False
        self.download = ""
        """Where code is downloaded from, if not from a file."""
        self.another_deploys = False
        self.invoked: list[str] = []
        """The hash of the code that each invocation ran."""

    def create(
        self,
        code: bytes,
        runtime: str = "python3.13",
        arch: str = "x86_64",
        handler: str = "index.handler",
        variables: Mapping[str, str] = OURS,
    ) -> None:
        role = boto3.client("iam").create_role(
            RoleName="r", AssumeRolePolicyDocument=json.dumps(ROLE)
        )
        boto3.client("lambda").create_function(
            FunctionName=NAME,
            Runtime=runtime,
            Architectures=[arch],
            Handler=handler,
            Role=role["Role"]["Arn"],
            Code={"ZipFile": code},
            Environment={"Variables": dict(variables)},
        )

    def publish(self, code: bytes, description: str = "") -> None:
        """Make this the running code, and a version."""
        client = boto3.client("lambda")
        client.update_function_code(FunctionName=NAME, ZipFile=code)
        client.publish_version(FunctionName=NAME, Description=description)

    def deploy(self, *packages: bytes) -> None:
        """What deploy.sh leaves after one deployment for each package, and in less time."""
        for number, code in enumerate(packages, len(self.versions) + 1):
            what = f"replaces version {number - 1}" if number > 1 else "first version"
            self.publish(code, f"deploy.sh: {what}")

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
    publish_named = LambdaResponse.publish_version

    def update_function_code(self: Any, body: Any) -> Any:
        if account.reads_until_active:
            raise Busy
        account.reads_until_updated = account.update_takes_reads
        answer = update(self, body)
        if account.another_deploys:
            # After the answer to the first one.
            another = {"ZipFile": base64.b64encode(package_of("another = 1", LARGE)).decode()}
            answer = dict(answer)
            update(self, another)
        return answer

    def publish_version(self: Any, *given: Any, **more: Any) -> Any:
        if account.reads_until_updated:
            raise Busy
        return publish(self, *given, **more)

    def publish_what_was_named(self: LambdaResponse) -> Any:
        """moto ignores CodeSha256."""
        name = self.path.split("/")[-2]
        running = self.backend.get_function(name).code_sha_256
        if self._get_param("CodeSha256", running) != running:
            said = "CodeSHA256 is different in $LATEST"
            raise LambdaClientError("InvalidParameterValueException", said)
        return publish_named(self)

    def invoke(self: Any, event: Any = None) -> tuple[str, bool, str]:
        assert event == {"health_check": True}
        account.invoked.append(self.code_sha_256)
        account.idle = False
        updated = not account.reads_until_updated
        healthy = self.code_sha_256 not in account.unhealthy
        answer = account.answer if healthy else {"healthy": False}
        return json.dumps(answer if updated else "the previous code answers"), False, ""

    monkeypatch.setattr(LambdaFunction, "update_function_code", update_function_code)
    monkeypatch.setattr(LambdaFunction, "_invoke_lambda", invoke)
    monkeypatch.setattr(LambdaBackend, "publish_version", publish_version)
    monkeypatch.setattr(LambdaResponse, "publish_version", publish_what_was_named)


def _tell_the_state(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration, code = LambdaFunction.get_configuration, LambdaFunction.get_code

    def get_configuration(self: Any, *given: Any, **more: Any) -> dict[str, Any]:
        found = configuration(self, *given, **more)
        if account.reads_until_active:
            found["State"] = "Pending"
        if account.idle:
            found["State"] = "Inactive"
        if account.reads_until_updated:
            found["LastUpdateStatus"] = "InProgress"
        return found

    def get_code(self: Any) -> dict[str, Any]:
        found = code(self)
        account.reads_until_active = max(0, account.reads_until_active - 1)
        account.reads_until_updated = max(0, account.reads_until_updated - 1)
        path = account.folder / f"{hashlib.sha256(self.code_bytes).hexdigest()}.zip"
        path.write_bytes(self.code_bytes)
        return {**found, "Code": {"Location": account.download or path.as_uri()}}

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


@pytest.mark.ci
@pytest.mark.check("S17")
def test_code_is_updated_kept_as_a_version_and_checked_each_when_aws_is_ready(
    account: Account, package: Path
) -> None:
    account.create(OLD)
    account.idle = True
    account.reads_until_active, account.update_takes_reads = 1, 2
    done = deploy_sh("--deploy", NAME, "--zip", package)
    assert f"{NAME} runs the new code, version 2\n" in done.stdout
    assert done.stdout.endswith(f"{NAME} is healthy\n")
    new = hash_of(package.read_bytes())
    assert account.running == new
    assert account.versions == [hash_of(OLD), new]
    # Woken, then checked.
    assert account.invoked == [hash_of(OLD), new]


@pytest.mark.ci
def test_code_of_someone_else_is_noticed(account: Account, package: Path) -> None:
    account.create(OLD)
    account.another_deploys = True
    done = deploy_sh("--deploy", NAME, "--zip", package, code=1)
    message = f"deploy.sh: cannot publish a version of {NAME}: is somebody else deploying?:"
    assert done.stderr.startswith(message)
    assert account.invoked == []


@pytest.mark.parametrize(
    ("command", "other"),
    [
        ("--deploy", {"handler": "app.main"}),
        pytest.param("--rollback", {"variables": {"TABLE": "bills"}}, marks=pytest.mark.ci),
    ],
)
def test_a_function_that_is_not_this_projects_is_left_alone(
    account: Account, package: Path, command: str, other: dict[str, Any]
) -> None:
    account.create(OLD, **other)
    more: list[str | Path] = ["--zip", package] if command == "--deploy" else []
    done = deploy_sh(command, NAME, *more, code=1)
    assert f"{NAME} is another function: its handler is " in done.stderr
    assert "Take the name from the stack's output FunctionName" in done.stderr
    assert (account.running, account.versions, account.invoked) == (hash_of(OLD), [], [])


@pytest.mark.check("S17")
@pytest.mark.ci
@pytest.mark.parametrize("again", [False, True])
def test_code_that_is_not_healthy_goes_back_by_itself_if_that_is_asked_for(
    account: Account, package: Path, again: bool
) -> None:
    account.create(OLD)
    account.update_takes_reads = 1
    new = hash_of(package.read_bytes())
    account.unhealthy = {new, hash_of(OLD)} if again else {new}
    done = deploy_sh("--deploy", NAME, "--zip", package, "--auto-rollback", code=1)
    assert '"healthy": false' in done.stdout
    assert account.running == hash_of(OLD)
    assert account.invoked == [new, hash_of(OLD)]
    last = f"deploy.sh: version 2 of {NAME} was not healthy: version 1 runs again\n"
    assert done.stderr == (
        f"deploy.sh: {NAME} is not healthy with version 1 either\n" if again else last
    )


@pytest.mark.ci
def test_the_first_code_and_code_that_deploy_sh_did_not_deploy_promise_no_rollback(
    account: Account, package: Path
) -> None:
    account.create(PLACEHOLDER)
    account.answer = {"healthy": False}
    done = deploy_sh("--deploy", NAME, "--zip", package, "--auto-rollback", code=1)
    assert "has no earlier code" in done.stderr
    assert f"run ./deploy.sh --deploy {NAME} again" in done.stderr
    assert "--rollback" not in done.stderr
    account.publish(OLD)
    for running in (hash_of(OLD), hash_of(package.read_bytes())):
        done = deploy_sh("--rollback", NAME, code=1)
        message = f"the running code of {NAME} replaced no other: check out the older code,"
        message += f" and run ./deploy.sh --deploy {NAME}"
        assert done.stderr == f"deploy.sh: {message}\n"
        assert account.running == running
        boto3.client("lambda").update_function_code(FunctionName=NAME, ZipFile=package.read_bytes())


@pytest.mark.parametrize(
    "other",
    [("--arch", "arm64"), pytest.param(("--python", "3.12"), marks=pytest.mark.ci)],
    ids=["architecture", "python"],
)
def test_a_package_for_another_python_or_architecture_is_not_deployed(
    account: Account, other: tuple[str, str]
) -> None:
    account.create(OLD)
    done = deploy_sh("--deploy", NAME, *other, code=1)
    assert done.stderr == (
        f"deploy.sh: {NAME} runs Python 3.13 on x86_64:"
        " change the stack's PythonVersion or Architecture first\n"
    )
    assert account.running == hash_of(OLD)


@pytest.mark.ci
def test_code_for_another_python_is_not_restored(account: Account) -> None:
    account.create(PLACEHOLDER, "python3.12")
    account.deploy(OLDER, OLD)
    boto3.client("lambda").update_function_configuration(FunctionName=NAME, Runtime="python3.13")
    done = deploy_sh("--rollback", NAME, code=1)
    assert f"version 1 of {NAME} is for python3.12 on x86_64" in done.stderr
    assert account.running == hash_of(OLD)


@pytest.mark.ci
def test_a_package_is_built_for_the_functions_python_and_architecture(
    account: Account, tmp_path: Path
) -> None:
    account.create(OLD, "python3.12", "arm64")
    # A copy, so that no other test's package is replaced.
    for name in ("deployment", "xapi_etl_processor"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "deployment/requirements.txt").write_text("# none, to be quick\n")
    shutil.copy(ROOT / "deploy.sh", tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    done = run(tmp_path / "deploy.sh", "--deploy", NAME, cwd="/")
    assert done.returncode == 0, done.stderr
    assert "xapi-etl-processor.zip for Python 3.12 on arm64" in done.stdout
    assert account.running == hash_of((tmp_path / "xapi-etl-processor.zip").read_bytes())


@pytest.mark.ci
def test_a_rollback_restores_what_was_promised_and_then_what_that_replaced(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.create(PLACEHOLDER)
    packages = [package_of(f"version = {number}", LARGE) for number in range(11)]
    account.deploy(*packages[:-1])
    # The same code with other settings is another version.
    boto3.client("lambda").update_function_configuration(FunctionName=NAME, MemorySize=512)
    boto3.client("lambda").publish_version(FunctionName=NAME)
    account.unhealthy = {hash_of(packages[-1])}
    (path := tmp_path / "package.zip").write_bytes(packages[-1])
    promised = deploy_sh("--deploy", NAME, "--zip", path, code=1).stderr
    assert promised.endswith(
        f"./deploy.sh --rollback {NAME} restores version {len(account.versions) - 1}\n"
    )
    listed = LambdaBackend.list_versions_by_function

    def as_texts(self: Any, name: str) -> Any:
        """In the order of 9, 8, ... 2, 10, 1: AWS promises none."""
        return sorted(listed(self, name), key=lambda one: str(one.version), reverse=True)

    monkeypatch.setattr(LambdaBackend, "list_versions_by_function", as_texts)
    account.update_takes_reads = 1
    for number in (9, 8):
        deploy_sh("--rollback", NAME)
        assert account.running == hash_of(packages[number])


@pytest.mark.ci
def test_the_same_code_again_is_no_deployment_and_a_check_that_cannot_be_made_goes_back(
    account: Account, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.create(OLD)
    for _ in range(2):
        deploy_sh("--deploy", NAME, "--zip", package)
    deploy_sh("--rollback", NAME)
    assert account.running == hash_of(OLD)
    invoke, new = LambdaFunction._invoke_lambda, hash_of(package.read_bytes())

    def throttled(self: Any, event: Any = None) -> Any:
        if self.code_sha_256 == new:
            raise Busy
        return invoke(self, event)

    monkeypatch.setattr(LambdaFunction, "_invoke_lambda", throttled)
    done = deploy_sh("--deploy", NAME, "--zip", package, "--auto-rollback", code=1)
    assert f"cannot invoke {NAME}" in done.stderr
    assert account.running == hash_of(OLD)
    account.unhealthy = {hash_of(OLD)}
    package.write_bytes(OLD)
    done = deploy_sh("--deploy", NAME, "--zip", package, "--auto-rollback", code=1)
    assert "its code was not changed" in done.stderr


@contextmanager
def serving(folder: Path, authority: trustme.CA) -> Iterator[str]:
    """Serves the folder's files by HTTPS; gives its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    files = partial(SimpleHTTPRequestHandler, directory=folder)
    with HTTPServer(("127.0.0.1", 0), files) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield f"https://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.ci
@pytest.mark.parametrize(
    ("trusted", "damaged", "said"),
    [
        (True, False, ""),
        (True, True, "is damaged"),
        (False, False, "cannot download version 1"),
    ],
)
def test_a_download_is_compared_and_trusts_whom_the_aws_command_trusts(
    account: Account, tmp_path: Path, trusted: bool, damaged: bool, said: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    account.create(PLACEHOLDER)
    account.deploy(OLDER, OLD)
    (tmp_path / "code.zip").write_bytes(OLDER[:-1] if damaged else OLDER)
    with serving(tmp_path, authority) as address:
        account.download = f"{address}/code.zip"
        more = {"AWS_CA_BUNDLE": str(tmp_path / "authority.pem")} if trusted else {}
        done = deploy_sh("--rollback", NAME, code=1 if said else 0, env=more)
    assert account.running == hash_of(OLD if said else OLDER)
    assert said in done.stderr
    assert trusted or "CERTIFICATE_VERIFY_FAILED" in done.stderr
