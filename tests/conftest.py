"""Real engines for every test: ClickHouse's current engine, and S3 over HTTP.

Each test has its own database and bucket, and reads the results through the engine itself, never
through the code under test.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import boto3
import botocore.session
import pytest

from local import aws
from local.clickhouse_server import ClickHouseServer
from tests.faults.http_proxy import S3Proxy, s3_proxy
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from tests.support.dirty import Dirty, fill
from tests.support.packages import Packages
from tests.support.reader import answers
from tests.support.samples import content, context, video
from tests.support.shared import shared_folder
from tests.support.simulated_queue import SimulatedQueue, simulated_backfill
from tests.support.watched import Watched
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.telemetry import logger
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.queues import sqs
from xapi_etl_processor.run import connections
from xapi_etl_processor.storage.tables import STATEMENTS

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

USER, PASSWORD = "loader", "not-a-secret-0c9f"

# Under `make test`, a make that a test starts would behave as a part of that one.
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(_name, None)

# Without it, each session would read the models of its services again: a sixth of all tests' time.
botocore.session.create_loader = cache(botocore.session.create_loader)

MEMORY, MEMORY_BYTES = Path("/dev/shm"), 4 * 1024**3  # noqa: S108  # only this user can read it
"""A folder in memory, where Linux has one, and what must be free there to use it; each process of a
whole run of the tests needs about 300 MB."""
Ask = Callable[[str], list[list[Any]]]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the long tests, so that at the end no process runs one while the others wait."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    """The current engine behind its native protocol, in this process: tests can set its hook."""
    # Thousands of small files take a tenth of all time on a disk, and next to none in memory.
    in_memory = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    folder = MEMORY if in_memory else tmp_path_factory.mktemp("clickhouse")
    with TemporaryDirectory(dir=folder, prefix="xapi-tests-", ignore_cleanup_errors=True) as data:
        server = ClickHouseServer(Path(data), user=USER, password=PASSWORD).start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def aws_environment() -> Iterator[dict[str, str]]:
    """moto's server, which every boto3 client of this process uses; its environment variables."""
    with aws.serving() as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield variables


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    """The deployment package for each Python and processor, built when it is first asked for."""
    return Packages(shared_folder(tmp_path_factory, "packages"))


@dataclass
class Bucket:
    """A bucket, as the learning platform that writes to it sees it."""

    name: str
    client: S3Client

    def put(self, key: str, *lines: bytes | dict[str, Any], body: bytes | None = None) -> str:
        """Upload lines, or a body; returns the key, for use in payloads."""
        self.client.put_object(
            Bucket=self.name, Key=key, Body=content(*lines) if body is None else body
        )
        return key

    def put_each(self, *keys: str) -> None:
        """Upload a bundle with one video statement, a different one for each key."""
        for number, key in enumerate(keys):
            self.put(key, video(number))

    def uri(self, key: str) -> str:
        """The object's URI, as in the column source_file."""
        return f"s3://{self.name}/{key}"


@pytest.fixture(scope="session")
def platform(aws_environment: dict[str, str]) -> S3Client:
    """The S3 client of whoever uploads bundles: it knows nothing of the proxies in front of S3."""
    return boto3.client("s3")


@pytest.fixture
def bucket(platform: S3Client) -> Bucket:
    name = f"bundles-{uuid4().hex[:12]}"
    platform.create_bucket(Bucket=name)
    return Bucket(name, platform)


def variables_for(server: ClickHouseServer, database: str) -> dict[str, str]:
    """The variables with which the code under test finds a database."""
    return {
        "CLICKHOUSE_HOST": "127.0.0.1",
        "CLICKHOUSE_PORT": str(server.port),
        "CLICKHOUSE_DATABASE": database,
        "CLICKHOUSE_USERNAME": USER,
        "CLICKHOUSE_PASSWORD": PASSWORD,
    }


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """Set these variables, and unset all others that the code under test reads."""
    for name in list(os.environ):
        if name.startswith(("CLICKHOUSE_", "S3_XAPI", "BATCH_", "S3_CONC", "SQS_", "BACKFILL_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def unmigrated(
    clickhouse: ClickHouseServer, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings, also set in the environment, for a database that does not exist yet."""
    variables = {
        **variables_for(clickhouse, f"test_{uuid4().hex[:12]}"),
        "S3_XAPI_BUCKET_NAME": bucket.name,
        "ENVIRONMENT": "test",
    }
    set_variables(monkeypatch, variables)
    settings = Settings.from_env(os.environ)
    yield settings
    clickhouse.hook = lambda *_: None
    forget_connections()
    clickhouse.engine.query(f"DROP DATABASE IF EXISTS {settings.clickhouse_database}")


MADE_OF = ["video_viewers", "video_sessions", "video_visits", "statement_stretches"]
"""Views that others are made of; each is made of those behind it."""


@dataclass
class Template:
    """A migrated database, and the statements that make one like it, with its name in them."""

    database: str
    creates: list[str]
    watching: list[str]
    """Those of the views of what was watched, in the order in which they need each other."""


@pytest.fixture(scope="session")
def template(clickhouse: ClickHouseServer) -> Template:
    """The current schema, copied for each test: migrating takes longer than many a test."""
    database = f"template_{uuid4().hex[:12]}"
    migrate(Settings.from_env(variables_for(clickhouse, database)))
    found = clickhouse.engine.query(
        f"SELECT create_table_query, name = '{STATEMENTS}' OR engine != 'View' FROM system.tables"
        f" WHERE database = '{database}' AND name != 'schema_versions'"
        f" ORDER BY engine = 'View', indexOf({MADE_OF}, name) DESC",
        "JSONCompactEachRow",
    )
    creates = [json.loads(line) for line in found.bytes().decode().splitlines()]
    return Template(
        database,
        [f"CREATE DATABASE {database}", *(create for create, loaded in creates if loaded)],
        [create for create, loaded in creates if not loaded],
    )


@pytest.fixture
def settings(unmigrated: Settings, clickhouse: ClickHouseServer, template: Template) -> Settings:
    """Settings, also set in the environment, for a database with the current tables.

    It has no list of applied migrations (tests of migrations migrate `unmigrated`), and of the
    views only `video_statements`: the others, which no code of ours reads, are in `watching`.
    """
    run_all(clickhouse, template.creates, template.database, unmigrated.clickhouse_database)
    return unmigrated


@pytest.fixture
def watching(settings: Settings, clickhouse: ClickHouseServer, template: Template) -> Settings:
    """`settings`, and the views of what was watched."""
    run_all(clickhouse, template.watching, template.database, settings.clickhouse_database)
    return settings


@pytest.fixture(scope="session")
def watched_database(clickhouse: ClickHouseServer, template: Template) -> str:
    """A database with all views, which tests share: creating it takes longer than a test."""
    made = f"watched_{uuid4().hex[:12]}"
    run_all(clickhouse, [*template.creates, *template.watching], template.database, made)
    return made


@pytest.fixture
def watched(clickhouse: ClickHouseServer, watched_database: str) -> Watched:
    return Watched(clickhouse, watched_database)


@pytest.fixture(scope="session")
def dirty(clickhouse: ClickHouseServer, platform: S3Client, template: Template) -> Dirty:
    """Repeats, versions, voided and late statements. The tests of all readers share it, so none may
    change it.
    """
    database, bucket = f"dirty_{uuid4().hex[:12]}", f"bundles-{uuid4().hex[:12]}"
    run_all(clickhouse, [*template.creates, *template.watching], template.database, database)
    clickhouse.engine.query(
        f"CREATE TABLE {database}.schema_versions AS {template.database}.schema_versions"
    )
    clickhouse.engine.query(
        f"INSERT INTO {database}.schema_versions SELECT * FROM {template.database}.schema_versions"
    )
    platform.create_bucket(Bucket=bucket)
    variables = {**variables_for(clickhouse, database), "S3_XAPI_BUCKET_NAME": bucket}
    made = Dirty(clickhouse, database, bucket, variables)
    fill(made, platform)
    return made


@pytest.fixture
def on_dirty(dirty: Dirty, platform: S3Client, monkeypatch: pytest.MonkeyPatch) -> Dirty:
    """`dirty`, with the environment set so that commands read it."""
    dirty.restore(platform)
    set_variables(monkeypatch, dirty.environment)
    return dirty


def run_all(server: ClickHouseServer, statements: list[str], template: str, database: str) -> None:
    """Run statements of a Template, with another database's name."""
    for sql in statements:
        server.engine.query(sql.replace(template, database))


def before_ledger_lookups(server: ClickHouseServer, act: Callable[[], object]) -> None:
    """Call `act` before each query that asks the ledger which objects are done."""

    def hook(point: str, sql: str) -> None:
        if point == "query" and "(bucket, key, etag) IN" in sql:
            act()

    server.hook = hook


_made: list[ClickHouse] = []


def forget_connections() -> None:
    """Close all connections, so that the next call starts as in a new container."""
    while _made:
        _made.pop().disconnect()
    connections.cache_clear()
    sqs.client.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _remembered_connections() -> Iterator[None]:
    """Remember every connection that the code under test makes, so that it can be closed."""

    def remembered(settings: Settings) -> ClickHouse:
        _made.append(ClickHouse(settings))
        return _made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xapi_etl_processor.run.ClickHouse", remembered)
        yield


@pytest.fixture(autouse=True)
def _closed_connections() -> Iterator[None]:
    yield
    forget_connections()


@pytest.fixture
def ask(clickhouse: ClickHouseServer, unmigrated: Settings) -> Ask:
    """Rows of a query in the test's database, from the engine itself."""
    return lambda sql: answers(clickhouse, unmigrated.clickhouse_database, sql)


def small_pages(settings: Settings, size: int) -> None:
    """Have S3 name few keys for each request of a listing."""

    def page(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = size

    events = connections(settings).s3.boto3.meta.events
    events.register("before-parameter-build.s3.ListObjectsV2", page)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts at ClickHouse, in seconds: recorded, not slept."""
    made: list[float] = []
    monkeypatch.setattr("xapi_etl_processor.base.attempts.time.sleep", made.append)
    return made


@pytest.fixture
def backfill(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SimulatedQueue:
    """The backfill queue, in simulated time."""
    return simulated_backfill(settings, monkeypatch)


class _StandardOutput:
    """Standard output, looked up at every write: pytest replaces it during a test."""

    def write(self, text: str) -> None:
        sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


@pytest.fixture
def own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line redirects the log to standard error; restore the stream after the test."""
    monkeypatch.setattr(logger.handlers[0], "stream", sys.stderr)


class Said(NamedTuple):
    """What a command has printed."""

    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its answer."""
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(own_stream: None, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run a command, which must end with this exit code; what it has printed."""

    def cli(*arguments: str, code: int = 0) -> Said:
        capsys.readouterr()  # What was logged before.
        try:
            ended: object = main(arguments)
        except SystemExit as stopped:  # Its options are refused, or it was asked for help.
            ended = stopped.code
        assert ended == code, arguments
        return Said(*capsys.readouterr())

    return cli


@pytest.fixture
def logged_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log goes to standard output, as in Lambda, so that capfd sees it."""
    monkeypatch.setattr(logger.handlers[0], "stream", _StandardOutput())


@dataclass
class Answer:
    """The handler's answer; body is its parsed body, or the whole answer to an SQS batch."""

    status: int | None
    body: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


Invoke = Callable[..., Answer]


def until_complete(invoke: Invoke, request: dict[str, Any], **options: Any) -> Iterator[Answer]:
    """The answer to a bulk request, and then to the token of each answer before."""
    while request:
        answer = invoke(request, **options)
        yield answer
        token = answer["continuation_token"]
        request = {"continuation_token": token} if token else {}


@pytest.fixture
def invoke(settings: Settings) -> Invoke:
    """Call the real handler as Lambda does: payload and answer pass through JSON."""

    def invoke(
        payload: Any, seconds_left: float = 60, clock: Callable[[], float] = time.monotonic
    ) -> Answer:
        answer = handler(json.loads(json.dumps(payload)), context(seconds_left, clock))
        answer = json.loads(json.dumps(answer))
        if "body" not in answer:
            return Answer(None, answer)
        return Answer(answer["statusCode"], json.loads(answer["body"]))

    return invoke


@pytest.fixture
def wire(
    clickhouse: ClickHouseServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TcpProxy]:
    """A proxy in front of ClickHouse; the loader connects only through it."""
    with tcp_proxy(clickhouse.port) as proxy:
        monkeypatch.setenv("CLICKHOUSE_PORT", str(proxy.port))
        forget_connections()
        yield proxy
        forget_connections()


@pytest.fixture
def store(
    aws_environment: dict[str, str],
    bucket: Bucket,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[S3Proxy]:
    """A proxy in front of S3; the loader connects only through it, `bucket` directly."""
    with s3_proxy(aws_environment["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        forget_connections()
        yield proxy
        forget_connections()
