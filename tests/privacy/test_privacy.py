"""Whatever goes wrong, personal data is only in the tables, and secrets are nowhere."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, Ask, Bucket
from tests.faults.http_proxy import Answer, Request, S3Proxy
from tests.faults.tcp_proxy import Fault, TcpProxy
from tests.support.refusals import refuse
from tests.support.samples import PLAYED, VIDEO, context, notification, sqs
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.pipeline import batch
from xapi_etl_processor.s3 import bundle

CANARY = "canary7f3e"

pytestmark = pytest.mark.usefixtures("logged_to_standard_output")

ROOT = Path(__file__).parents[2]


def personal(number: int) -> dict[str, Any]:
    """A statement with the canary wherever xAPI allows personal data."""
    agent = {
        "objectType": "Agent",
        "name": CANARY,
        "mbox": f"mailto:{CANARY}@example.org",
        "mbox_sha1sum": CANARY,
        "openid": f"https://{CANARY}.example.org",
        "account": {"name": CANARY, "homePage": f"https://example.org/{CANARY}"},
    }
    return {
        "id": f"{CANARY}-{number}",
        "actor": {**agent, "member": [agent]},
        "verb": {"id": PLAYED, "display": {"en": CANARY}},
        "object": {
            "id": f"https://example.org/{CANARY}",
            "definition": {"name": {"en": CANARY}, "description": {"en": CANARY}},
        },
        "result": {"response": CANARY, "duration": CANARY, "extensions": {VIDEO + "time": CANARY}},
        "context": {
            "instructor": agent,
            "team": agent,
            "statement": {"objectType": "StatementRef", "id": CANARY},
            "registration": CANARY,
            "extensions": {f"https://example.org/{CANARY}": CANARY, "ip": "203.0.113.77"},
        },
        "authority": agent,
        "timestamp": CANARY,
        "attachments": [{"display": {"en": CANARY}, "fileUrl": f"https://example.org/{CANARY}"}],
    }


TEXT = json.dumps(personal(1)).encode()
LINES = [
    TEXT,
    json.dumps({**personal(2), "actor": [CANARY], "context": CANARY}).encode(),
    json.dumps({k: v for k, v in personal(3).items() if k != "verb"}).encode(),
    TEXT[:-20],
    TEXT + b"}",
    b"\xff" + TEXT,
    TEXT.replace(b'"id"', b'"id": NaN, "id"', 1),
    TEXT.replace(b"canary7f3e", b"canary7f3e\\ud800", 1),
    b"[" * 200 + TEXT,
]


Injected = Callable[[SimpleNamespace], object]
"""Causes a fault in what it is given: `s3`, `wire`, `server` or, with `patch`, our own code."""


def server_error(code: int) -> Injected:
    """A server error that quotes values, as errors of parsers and constraints do."""
    text = f"Cannot parse '{CANARY}': Column values: user_id = '{CANARY}'"
    return lambda at: refuse(at.server, code, r"\.video_events ", at="insert", text=text)


def answered(answer: Answer) -> Injected:
    def rule(request: Request) -> Answer | None:
        return answer if request.method == "GET" and ".jsonl" in request.path else None

    return lambda at: setattr(at.s3, "rule", rule)


def lose_acknowledgement(at: SimpleNamespace) -> None:
    def cut(point: str, sql: str) -> None:
        if point == "stored" and ".video_events " in sql:
            raise ConnectionAbortedError

    at.server.hook = cut


def cut_inside_a_block(at: SimpleNamespace) -> None:
    at.wire.fault = Fault(cut_after=1200, since=b".video_events (", times=50)


def broken(*_: Any) -> Any:
    raise ValueError(CANARY)


def refused_by_the_driver(value: str) -> Injected:
    return lambda at: at.patch.setattr(batch, "to_columns", lambda _: {"volume": [value]})


def title_is_a_number(at: SimpleNamespace) -> None:
    at.ask("TRUNCATE video_events")
    at.ask("ALTER TABLE video_events MODIFY COLUMN video_title UUID")


FAULTS: dict[str, Injected] = {
    "body cut": answered(Answer(cut=1500)),
    "access denied": answered(Answer("AccessDenied", 403)),
    "connection cut inside a block": cut_inside_a_block,
    "acknowledgement lost": lose_acknowledgement,
    "a value cannot be parsed": server_error(27),
    "a constraint is violated": server_error(469),
    "an unknown error": server_error(4711),
    "a timeout": server_error(159),
    "too little memory": server_error(241),
    "a defect while parsing": lambda at: at.patch.setattr(bundle, "parse", broken),
    "a value that the driver refuses": refused_by_the_driver(CANARY),
    "text that UTF-8 cannot encode": refused_by_the_driver("\ud800"),
    "bad lines only": lambda _: None,
    "gzip cut": lambda _: None,
    "no statement at all": lambda _: None,
    "time ran out": lambda _: None,
    # It must be the last one, since it changes the table.
    "a value that the driver cannot convert": title_is_a_number,
}
BODIES = {
    "gzip cut": gzip.compress(TEXT * 100)[:-30],
    "no statement at all": TEXT[:-20] + b"\n" + TEXT[:-30],
}


@pytest.mark.slow
@pytest.mark.fault(29, 36, caught_by="errors quote no values")
@pytest.mark.check("S10", "S4")
@pytest.mark.parametrize("shift", [0, *(pytest.param(n, marks=pytest.mark.ci) for n in (1, 2))])
@pytest.mark.usefixtures("pauses")
def test_no_fault_reveals_personal_data_or_secrets(
    bucket: Bucket,
    store: S3Proxy,
    wire: TcpProxy,
    ask: Ask,
    clickhouse: ClickHouseServer,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    shift: int,
) -> None:
    """Each fault in one of the three ways of invoking the function, and in the others in CI."""
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    monkeypatch.setattr("xapi_etl_processor.base.attempts.BUSY_SECONDS", 1)
    for number, (name, inject) in enumerate(FAULTS.items()):
        body = BODIES.get(name, b"\n".join(LINES))
        key = bucket.put(f"section/{number}/video/a.jsonl", body=body)
        payload = (
            sqs(m=notification(bucket.name, key)),
            {"bucket": bucket.name, "key": key},
            {"mode": "bulk", "section_id": number},
        )[(number + shift) % 3]
        with monkeypatch.context() as patch:
            inject(SimpleNamespace(s3=store, wire=wire, server=clickhouse, ask=ask, patch=patch))
            said = answer_to(payload, 0 if name == "time ran out" else 60)
        store.rule, wire.fault, clickhouse.hook = nothing, Fault(times=0), nothing
        out, err = capfd.readouterr()
        assert "ended" in out or "failed" in out, name
        for secret in (CANARY, "203.0.113.77", PASSWORD, "\\ud800"):
            assert secret not in said + out + err, name


def nothing(*_: Any) -> None:
    """A hook of ClickHouse, or a rule of S3, that lets everything pass."""


def answer_to(payload: Any, seconds_left: float) -> str:
    """The handler's answer, or what Lambda would log of what it raises."""
    try:
        return json.dumps(handler(payload, context(seconds_left)))
    except Exception as error:  # noqa: BLE001  # Lambda would log any exception
        said = "".join(traceback.format_exception(error))
        # These lines show our own source, not values.
        return "\n".join(line for line in said.splitlines() if not line.startswith("    "))


@pytest.mark.check("S10")
def test_a_message_that_is_not_an_event_is_not_quoted_in_the_log(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    for body in (
        CANARY,
        {"actor": CANARY},
        {"Records": [{"s3": CANARY}]},
        {"Records": [{"eventSource": CANARY}]},
        {"Records": [{"eventSource": {"actor": {"mbox": f"mailto:{CANARY}@x"}}}]},
        {"Records": [{"eventName": CANARY, "s3": {}}]},
        {"source": "aws.s3", "detail-type": CANARY, "detail": {}},
    ):
        assert handler(sqs(m=body), context()) == {"batchItemFailures": [{"itemIdentifier": "m"}]}
        out, err = capfd.readouterr()
        assert CANARY not in out + err, body


@pytest.mark.check("S11")
def test_a_key_cannot_forge_a_log_line(
    bucket: Bucket, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    forged = '{"level":"INFO","message":"all is well"}'
    key = f"section/1/\r\n{forged}\n\x1b[2J.jsonl"
    handler(sqs(m=notification(bucket.name, key)), context())
    out, _ = capfd.readouterr()
    lines = out.split("\n")  # As Lambda splits them.
    assert "\x1b" not in out
    assert "\r" not in out
    assert [json.loads(line).get("message") for line in lines if line.strip()] == [
        "event ended",
        None,
    ]


_SECRETS = {
    "an AWS key": r"\b(AKIA|ASIA)[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "a password in an address": r"(clickhouse|https?)://[^\s/:@{}'\"]+:[^\s/:@{}'\"]+@",
}


@pytest.mark.slow
@pytest.mark.check("S21")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="NOT TESTED: this is not a git clone")
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("git grep -I -h -e ''", id="files"),
        pytest.param(
            "git log --all --patch --no-color --no-textconv", id="history", marks=pytest.mark.ci
        ),
    ],
)
def test_there_is_no_secret_in_the_git_history(command: str) -> None:
    environment = {**os.environ, "GIT_PAGER": "cat"}
    said = subprocess.run(
        shlex.split(command), cwd=ROOT, env=environment, capture_output=True, check=True
    ).stdout.decode(errors="replace")
    assert len(said) > 100_000
    for name, pattern in _SECRETS.items():
        assert not re.search(pattern, said), name
