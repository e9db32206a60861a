"""The health check says what is wrong with each service, and writes nothing."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from clickhouse_driver import Client

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, Ask, Bucket, Invoke, forget_connections
from tests.faults.http_proxy import Answer as Rejected
from tests.faults.http_proxy import Rule, S3Proxy
from tests.faults.tcp_proxy import Fault, TcpProxy, tcp_proxy
from tests.support.refusals import refuse
from tests.support.samples import context, video
from xapi_etl_processor import __version__
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.modes import health
from xapi_etl_processor.storage import checks
from xapi_etl_processor.storage.tables import TYPES, VIEWS

pytestmark = pytest.mark.usefixtures("settings")

CHECK = {"health_check": True}


def check() -> tuple[int, dict[str, Any]]:
    """Status and body of the health check, as in a new container."""
    forget_connections()
    answer = handler(CHECK, context())
    assert PASSWORD not in answer["body"]
    return answer["statusCode"], json.loads(answer["body"])


@pytest.mark.slow
@pytest.mark.check("S9")
def test_a_healthy_system_is_answered_with_200_and_its_details_and_nothing_is_changed(
    bucket: Bucket, invoke: Invoke, ask: Ask, clickhouse: ClickHouseServer
) -> None:
    points: list[str] = []
    asked: list[str] = []

    def note(point: str, sql: str) -> None:
        points.append(point)
        if point == "query":
            asked.append(sql.split(" ", maxsplit=1)[0])

    clickhouse.hook = note
    answer = invoke(CHECK)
    assert answer.status == 200
    latency = answer["clickhouse"].pop("latency_ms")
    version = answer["clickhouse"].pop("version")
    assert 0 < latency < 5000
    assert re.fullmatch(r"\d+\.\d+\.\d+\.\d+", version)
    assert answer.body == {
        "healthy": True,
        "processing_mode": "health_check",
        "version": __version__,
        "environment": "test",
        "clickhouse": {
            "ok": True,
            "schema": "current",
            "error": None,
            # The only user of this server has nearly every right.
            "warning": "the user has rights it does not need: ALTER, DROP, TRUNCATE;"
            " GRANT SELECT, INSERT is enough",
        },
        "s3": {"ok": True, "bucket": bucket.name, "warning": None, "error": None},
    }
    assert set(asked) == {"SELECT", "INSERT", "SHOW"}
    # Each query is a round trip. At 80 ms each, a healthy ClickHouse must not look too slow.
    assert len(asked) <= 15 + len(VIEWS), asked
    assert "block" not in points
    for table in ("video_events", "processed_files", "rejected_statements", "voided_statements"):
        assert ask(f"SELECT count() FROM {table}") == [[0]]


def test_a_user_who_cannot_be_given_fewer_rights_is_not_warned_of(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In `make local`, and in the demo."""
    monkeypatch.setenv("ENVIRONMENT", "local")
    assert invoke(CHECK)["clickhouse"]["warning"] is None


def test_s3_is_asked_only_about_the_prefix_that_the_role_may_read(
    bucket: Bucket, store: S3Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_XAPI_PREFIX", "exports")
    bucket.put("exports/1.jsonl", video(1))
    bucket.put("imports/1.jsonl", video(1))
    assert handler(CHECK, context())["statusCode"] == 200
    # A thread that another test has left may still ask about its own bucket.
    asked = [request for request in store.requests if bucket.name in request.path]
    assert [request.method for request in asked] == ["GET", "HEAD", "GET"]
    assert all("exports%2F" in r.path or "/exports/" in r.path for r in asked)


def queue_notification(prefix: str, ending: str, event: str = "s3:ObjectCreated:*") -> Any:
    rules = [{"Name": "prefix", "Value": prefix}, {"Name": "suffix", "Value": ending}]
    rules = [rule for rule in rules if rule["Value"]]
    arn = "arn:aws:sqs:us-east-1:123456789012:uploads"
    filters = {"Filter": {"Key": {"FilterRules": rules}}} if rules else {}
    return {"QueueArn": arn, "Events": [event], **filters}


EACH_KIND = [
    f"s3:ObjectCreated:{kind}" for kind in ("Put", "Post", "Copy", "CompleteMultipartUpload")
]
BOTH = [queue_notification("section/", ending) for ending in (".jsonl", ".jsonl.gz")]


@pytest.mark.slow
def test_a_bucket_that_does_not_notify_the_queue_is_a_warning(
    bucket: Bucket, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/uploads")
    for queues, unannounced in (
        ([], ".jsonl or .jsonl.gz"),
        (BOTH[:1], ".jsonl.gz"),
        (BOTH, None),
        ([queue_notification("section/", "") | {"Events": EACH_KIND}], None),
        ([queue_notification("section/2001/", "")], ".jsonl or .jsonl.gz"),
        ([queue_notification("", "", "s3:ObjectRemoved:*")], ".jsonl or .jsonl.gz"),
    ):
        bucket.client.put_bucket_notification_configuration(
            Bucket=bucket.name,
            NotificationConfiguration={"QueueConfigurations": queues},
            SkipDestinationValidation=True,
        )
        answer = invoke(CHECK)
        assert answer["healthy"]
        warning = answer["s3"]["warning"]
        if unannounced is None:
            assert warning is None, queues
        else:
            said = f"does not notify the queue uploads of new objects that end in {unannounced}:"
            assert said in warning
            assert "./deploy.sh --connect" in warning


def only_for_notifications(said: Rejected) -> Rule:
    return lambda request: said if "notification" in request.path else None


@pytest.mark.slow
def test_notifications_that_cannot_be_known_are_no_warning(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, store: S3Proxy
) -> None:
    monkeypatch.setenv("SQS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/123456789012/uploads")
    assert invoke(CHECK)["s3"]["warning"]
    by_event_bridge = (
        b'<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<EventBridgeConfiguration/></NotificationConfiguration>"
    )
    for said in (Rejected("AccessDenied", 403), Rejected(body=by_event_bridge)):
        store.rule = only_for_notifications(said)
        answer = invoke(CHECK)
        assert (answer["healthy"], answer["s3"]["warning"]) == (True, None)


@pytest.mark.fault(66, caught_by="health check")
def test_the_right_to_insert_is_asked_with_the_settings_of_an_insert_and_named_if_it_is_missing(
    settings: Settings, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile may forbid one of them."""
    sent: list[dict[str, Any]] = []
    execute = Client.execute

    def note(self: Any, sql: str, *more: Any, **named: Any) -> Any:
        if sql.startswith("INSERT"):
            sent.append(named["settings"])
        return execute(self, sql, *more, **named)

    monkeypatch.setattr(Client, "execute", note)
    assert check()[0] == 200
    assert len(sent) == len(TYPES)
    for found in sent:
        assert found["async_insert"] == 0
        assert found["insert_deduplication_token"]
    refuse(clickhouse, 497, "rejected_statements", at="insert")
    status, body = check()
    assert status == 503
    assert "insert into rejected_statements was refused" in body["clickhouse"]["error"]
    assert "grant the rights listed in docs/operations.md" in body["clickhouse"]["error"]


@pytest.mark.check("S9")
def test_only_rights_on_our_tables_that_can_destroy_them_are_named() -> None:
    """Lines of SHOW GRANTS, as ClickHouse documents them."""
    grants = {
        "GRANT SELECT, INSERT ON xapi.video_events TO loader": None,
        "GRANT SHOW, SELECT(event_id, verb), INSERT ON xapi.* TO loader": None,
        "GRANT DROP TABLE ON xapi.mine TO loader": None,
        "GRANT readers TO loader": None,
        "GRANT TABLE ENGINE ON * TO loader": None,
        "GRANT SELECT, ALTER UPDATE(verb), TRUNCATE ON xapi.* TO loader": "ALTER UPDATE, TRUNCATE",
        "GRANT DROP TABLE ON `xapi`.`video_events` TO loader WITH GRANT OPTION": "DROP TABLE",
        "GRANT ALL ON *.* TO loader": "ALL",
    }
    for grant, named in grants.items():
        warning = checks.unneeded_rights(lambda _, grant=grant: [(grant,)], "xapi") or ""
        assert (f"does not need: {named};" in warning) == bool(warning) == bool(named), grant


def test_a_view_that_is_not_planned_in_time_is_a_warning(
    ask: Ask, clickhouse: ClickHouseServer
) -> None:
    ask("CREATE VIEW video_seeks AS SELECT 1 AS one")

    def lose(_: str, sql: str) -> None:
        if ".video_seeks" in sql:
            raise ConnectionAbortedError

    clickhouse.hook = lose
    status, body = check()
    assert (status, body["clickhouse"]["error"]) == (200, None)
    assert "whether the view video_seeks can be read is not known" in body["clickhouse"]["warning"]


def test_a_view_that_the_server_does_not_read_is_named_with_its_version(
    ask: Ask, clickhouse: ClickHouseServer
) -> None:
    ask("CREATE VIEW changed AS SELECT 1 AS one")
    ask("CREATE OR REPLACE VIEW video_seeks AS SELECT one FROM changed")
    ask("CREATE OR REPLACE VIEW changed AS SELECT 1 AS other")
    status, body = check()
    found = body["clickhouse"]
    said = f"ClickHouse {found['version']} does not read the view video_seeks: run"
    assert said in found["warning"]
    # Loading works.
    assert status == 200
    # A view that the user may not read causes no warning.
    refuse(clickhouse, 497, r"FROM \w+\.(video_seeks|viewer_progress) ")
    assert "view" not in check()[1]["clickhouse"]["warning"]


@pytest.mark.slow
@pytest.mark.fault(38, caught_by="health check")
def test_a_table_that_differs_is_named_and_reported_as_behind(ask: Ask) -> None:
    def behind(*changes: str) -> str:
        for change in changes:
            ask(change)
        status, body = check()
        assert (status, body["clickhouse"]["schema"]) == (503, "behind"), changes
        error: str = body["clickhouse"]["error"]
        return error

    ask("ALTER TABLE video_events ADD COLUMN cohort String")
    assert check()[0] == 200, "more columns do no harm"
    view = "CREATE OR REPLACE VIEW video_statements AS SELECT * {} FROM video_events"
    assert "video_statements.track is not there" in behind(view.format("EXCEPT track"))
    ask(view.format(""))
    change = "ALTER TABLE video_events MODIFY COLUMN volume Nullable(Float32)"
    assert "video_events.volume is Nullable(Float32), not Nullable(Float64)" in behind(change)
    error = behind("ALTER TABLE video_events DROP COLUMN track")
    assert "video_events.track is not there" in error
    names = ("volume", "quality", "frame_rate", "user_agent")
    error = behind(f"ALTER TABLE video_events {', '.join(f'DROP COLUMN {n}' for n in names)}")
    assert error.count(" is not there") == 3
    assert " and 2 more: run `python -m xapi_etl_processor migrate`" in error
    assert "lacks video_statements" in behind("DROP VIEW video_statements")
    assert "processed_files" in behind("DROP TABLE processed_files").partition("lacks ")[2]


@pytest.mark.check("S9")
@pytest.mark.fault(66, 68, caught_by="health check")
def test_a_user_who_may_not_ask_everything_is_told_what_to_grant_and_rights_are_seen_all_the_same(
    invoke: Invoke, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not all servers know SHOW GRANTS FINAL.
    for unknown, warning in (
        ("SHOW GRANTS FINAL", "rights it does not need: ALTER, DROP"),
        ("SHOW GRANTS", ""),
    ):
        refuse(clickhouse, 62, f"^{unknown}", text="Syntax error: failed at FINAL")
        answer = invoke(CHECK)
        assert answer.status == 200
        found = answer["clickhouse"]["warning"] or ""
        assert bool(found) == bool(warning)
        assert warning in found
    # ClickHouse's default: only a few tables of `system` can be read without a grant.
    refuse(clickhouse, 497, r"FROM system\.(clusters|replicas)")
    answer = invoke(CHECK)
    assert answer.status == 200
    assert "cannot be seen: GRANT SELECT ON system.clusters" in answer["clickhouse"]["warning"]
    # With a cluster in the settings, not knowing is an error.
    monkeypatch.setenv("CLICKHOUSE_CLUSTER", "pair")
    status, body = check()
    assert status == 503
    assert "cannot be seen: GRANT SELECT ON system.clusters" in body["clickhouse"]["error"]


@pytest.fixture
def waking(
    settings: Settings, clickhouse: ClickHouseServer, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A ClickHouse that accepts connections and greets after the seconds that are set."""
    with tcp_proxy(clickhouse.port) as proxy:
        monkeypatch.setenv("CLICKHOUSE_PORT", str(proxy.port))
        monkeypatch.setattr(health, "SERVICE_SECONDS", 2)
        forget_connections()
        yield proxy
        forget_connections()


@pytest.mark.slow
@pytest.mark.fault(67, caught_by="a new connection waits for the greeting")
@pytest.mark.fault(67, caught_by="health check")
def test_a_sleeping_server_is_waited_for_and_said_to_be_waking_if_it_takes_too_long(
    waking: TcpProxy,
) -> None:
    waking.fault = Fault(hold=2.5, times=2)
    status, body = check()
    assert waking.fault.fired == 2
    assert (status, body["healthy"]) == (200, True)
    waking.fault = Fault(swallow=True, times=100)
    forget_connections()
    answer = handler(CHECK, context(seconds_left=4))
    assert answer["statusCode"] == 503
    found = json.loads(answer["body"])
    assert " is waking: " in found["clickhouse"]["error"]
    assert found["s3"]["ok"]


@pytest.mark.slow
@pytest.mark.fault(66, caught_by="health check")
@pytest.mark.usefixtures("pauses")
def test_each_cause_has_its_own_message(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:is-not-there"
    for variable, value, service, said in (
        ("CLICKHOUSE_PORT", "1", "clickhouse", "no connection"),
        ("CLICKHOUSE_HOST", "nowhere.invalid", "clickhouse", "no connection"),
        ("CLICKHOUSE_PASSWORD", "wrong-4242", "clickhouse", "check CLICKHOUSE_USERNAME"),
        ("CLICKHOUSE_USERNAME", "nobody", "clickhouse", "check CLICKHOUSE_USERNAME"),
        ("CLICKHOUSE_HOST", "", "clickhouse", "CLICKHOUSE_HOST is not set"),
        ("CLICKHOUSE_PORT", "many", "clickhouse", "CLICKHOUSE_PORT is 'many'"),
        ("CLICKHOUSE_PASSWORD_SECRET_ARN", arn, "clickhouse", f"_ARN: {arn} cannot be read"),
        ("S3_XAPI_BUCKET_NAME", "no-such-bucket-here", "s3", "does not exist"),
        ("S3_XAPI_BUCKET_NAME", "", "s3", "S3_XAPI_BUCKET_NAME is not set"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            status, body = check()
        found = body[service]
        assert (status, body["healthy"], found["ok"]) == (503, False, False)
        assert body["environment"] == "test"
        assert said in found["error"]
        assert "wrong-4242" not in json.dumps(body)
        # S3 is healthy even if the secret cannot be read.
        if value == arn:
            s3 = {"ok": True, "bucket": bucket.name, "warning": None, "error": None}
            assert body["s3"] == s3
    # A service is not called healthy if there was no time to ask it.
    late = json.loads(handler(CHECK, context(seconds_left=0))["body"])
    assert (late["healthy"], late["clickhouse"]["ok"], late["s3"]["ok"]) == (False, False, False)
