"""The client says what failed and where, retries what can succeed, and works on after an error."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import boto3
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import PASSWORD, USER, Ask
from tests.support.refusals import cut, refuse, watch
from xapi_etl_processor import clickhouse_client
from xapi_etl_processor.base import attempts, secrets
from xapi_etl_processor.base.clickhouse_errors import CODES, meaning
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.base.errors import (
    ClickHouseDenied,
    ClickHouseError,
    ClickHouseRefused,
    ClickHouseUnavailable,
    ClickHouseWaking,
    ConfigurationError,
    OutcomeUnknown,
)
from xapi_etl_processor.clickhouse_client import ClickHouse

ROWS: dict[str, list[Any]] = {
    "source_file": ["a", "b"],
    "source_etag": ["e", "e"],
    "source_line": [1, 2],
    "reason": ["r", "r"],
    "line": [b"\xff\x00", "text"],
}


@pytest.mark.fault(31, caught_by="a new connection after every error")
@pytest.mark.fault(29, caught_by="check before anything is sent")
def test_what_is_invalid_is_refused_at_once_and_the_next_valid_query_and_insert_work(
    client: ClickHouse, ask: Ask, pauses: list[float]
) -> None:
    with pytest.raises(ClickHouseRefused, match=r"insert into nope was refused.*migrate"):
        client.insert("nope", ROWS)
    with pytest.raises(ClickHouseRefused, match=r"No such column extra.*migrate"):
        client.insert("rejected_statements", ROWS | {"extra": [1, 2]})
    with pytest.raises(ClickHouseRefused, match="insert into rejected_statements failed"):
        client.insert("rejected_statements", ROWS | {"source_line": [1, 2**32]})
    with pytest.raises((ClickHouseRefused, ValueError)):
        client.insert("rejected_statements", ROWS | {"reason": ["only one"]})
    with pytest.raises(ClickHouseRefused, match="query was refused.*nope") as caught:
        client.query("SELECT nope")
    assert "Stack trace" not in str(caught.value)
    assert pauses == []
    assert client.query("SELECT 1") == [(1,)]
    assert ask("SELECT count() FROM rejected_statements") == [[0]]
    client.insert("rejected_statements", ROWS)
    # Bytes that are not text are stored unchanged.
    assert ask("SELECT hex(line) FROM rejected_statements ORDER BY 1") == [["74657874"], ["FF00"]]


@pytest.mark.fault(34, 35, 36, 37, 72, caught_by="error codes")
def test_the_servers_error_code_decides_whether_to_retry(
    client: ClickHouse, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    for code, text, kind, tries in (
        (252, "Too many partitions for single INSERT block", ClickHouseRefused, 1),
        (242, "Table is in readonly mode", ClickHouseUnavailable, 4),
        (319, "Unknown status of insert", OutcomeUnknown, 4),
        (159, "Timeout exceeded", OutcomeUnknown, 4),
        (499, "Message: Please reduce your request rate", OutcomeUnknown, 4),
        (9999, "a code that ClickHouse adds tomorrow", OutcomeUnknown, 4),
        (60, "Table does not exist", ClickHouseRefused, 1),
        (497, "Not enough privileges", ClickHouseDenied, 1),
    ):
        pauses.clear()
        seen = refuse(clickhouse, code, at="insert", text=text)
        # Only the texts of these codes are passed on: others may quote a value of a statement.
        said = text if code in (60, 252, 497) else f"code {code}[A-Z_0-9 ]*: "
        with pytest.raises(kind, match=said.split(" (", maxsplit=1)[0]) as caught:
            client.insert("rejected_statements", ROWS)
        assert type(caught.value) is kind, code
        assert (len(seen), len(pauses)) == (tries, tries - 1), code


@pytest.mark.slow
@pytest.mark.check("S10")
def test_only_texts_that_can_quote_no_value_are_passed_on(
    client: ClickHouse, clickhouse: ClickHouseServer
) -> None:
    """Those that name tables, columns, rights and counts."""
    shown = set()
    for code in (*CODES, 252, 4711):
        refuse(clickhouse, code, at="insert", text="a viewer's name")
        with pytest.raises(ClickHouseError, match=f"code {code}") as caught:
            client.insert("rejected_statements", ROWS, deadline=FOREVER.within(4))
        if "a viewer's name" in str(caught.value):
            shown.add(code)
    assert shown == {16, 47, 60, 81, 115, 242, 252, 285, 497}


@pytest.mark.fault(36, 37, 78, caught_by="error codes")
def test_every_known_error_code_has_the_right_verdict() -> None:
    # From ClickHouse's ErrorCodes.cpp: temporary errors, unknown outcomes, permanent errors.
    busy = {202, 241, 439, 745}
    retry = {203, 225, 242, 243, 285, 286}
    uncertain = {75, 159, 209, 210, 236, 244, 319, 394, 425, 499, 999}
    fatal = {16, 36, 46, 47, 50, 53, 60, 62, 81, 115, 164, 192, 193, 194, 359, 469, 497, 516}
    expected = dict.fromkeys(busy, "busy") | dict.fromkeys(retry, "retry")
    expected |= dict.fromkeys(uncertain, "uncertain")
    expected |= dict.fromkeys(fatal, "fatal")
    assert {code: found.verdict for code, found in CODES.items()} == expected
    # Unknown, so it may be any of them; a repeat with the same token is safe.
    assert meaning(4711, "no such code yet").verdict == "uncertain"


@pytest.mark.fault(12, 34, caught_by="growing pauses; deadline")
def test_pauses_between_retries_grow_and_are_random_and_end_before_the_deadline(
    client: ClickHouse, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    # An insert has arrived in full, and is not stored yet.
    cut(clickhouse, "insert")
    for _ in range(2):
        with pytest.raises(OutcomeUnknown, match="doing it again is safe"):
            client.insert("rejected_statements", ROWS)
    assert [0.5 * 2**n <= pause <= 2**n for n, pause in enumerate(pauses[:3])] == [True] * 3
    assert pauses[:3] != pauses[3:]
    pauses.clear()
    with pytest.raises(OutcomeUnknown):
        client.insert("rejected_statements", ROWS, deadline=FOREVER.within(1))
    assert pauses == []


@pytest.mark.slow
@pytest.mark.fault(32, caught_by="limit for the greeting; deadline")
def test_a_server_that_never_greets_is_given_up_after_the_time_to_wake_or_at_the_deadline(
    settings: Settings, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clickhouse_client, "WAKE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        quiet = replace(settings, clickhouse_port=silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(ClickHouseWaking, match="is waking"):
            ClickHouse(quiet).query("SELECT 1")
        # A query's answer may take a minute.
        assert time.monotonic() - started < 10
        assert len(pauses) == attempts.ATTEMPTS - 1
        monkeypatch.setattr(clickhouse_client, "WAKE_SECONDS", 60)
        # Nothing was sent, so nothing can be stored. A port for HTTP is silent like this too.
        with pytest.raises(ClickHouseWaking, match="check that this is its native port"):
            ClickHouse(quiet).insert("t", {}, deadline=FOREVER.within(0.5))


@pytest.mark.check("S4")
@pytest.mark.fault(63, caught_by="the secret is read again, once")
def test_a_refused_login_is_not_tried_again_says_what_to_check_and_shows_no_password(
    settings: Settings, clickhouse: ClickHouseServer, pauses: list[float]
) -> None:
    with pytest.raises(ClickHouseRefused, match="check CLICKHOUSE_USERNAME") as caught:
        ClickHouse(replace(settings, clickhouse_password="other-4711")).query("SELECT 1")
    assert "other-4711" not in str(caught.value)
    assert PASSWORD not in repr(settings)
    tried = refuse(clickhouse, 516)
    client = ClickHouse(settings)
    with pytest.raises(ClickHouseRefused, match="code 516 "):
        client.query("SELECT 1")
    client.disconnect()
    assert (tried, pauses) == (["SELECT 1"], [])


def with_secret(settings: Settings, **content: Any) -> Settings:
    """Settings whose password is that of a new secret, with this content."""
    name = f"password-{time.monotonic_ns()}"
    arn = boto3.client("secretsmanager").create_secret(Name=name, **content)["ARN"]
    return replace(settings, clickhouse_password="wrong", clickhouse_password_secret_arn=arn)


@pytest.mark.slow
@pytest.mark.check("S4")
def test_the_password_comes_from_a_secret_which_is_named_and_not_shown_if_it_holds_none(
    settings: Settings,
) -> None:
    for text, password in {
        PASSWORD: PASSWORD,
        f'{{"username": "x", "password": "{PASSWORD}"}}': PASSWORD,
        " p ": " p ",
        '  {"password": " p "}': " p ",
    }.items():
        assert secrets.password(with_secret(settings, SecretString=text)) == password, text
    for text in ('{"user": "x"}', '{"password": {"a": "b"}}', '{"password": ' + "[" * 9000):
        there = with_secret(settings, SecretString=text)
        with pytest.raises(ConfigurationError, match="is JSON without a `password` stri") as caught:
            secrets.password(there)
        assert text not in str(caught.value)
    there = with_secret(settings, SecretBinary=b"s3cret")
    named = f"{there.clickhouse_password_secret_arn} holds binary data"
    with pytest.raises(ConfigurationError, match=named) as caught:
        secrets.password(there)
    assert "s3cret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.fault(63, caught_by="the secret is read again, once")
def test_a_rotated_secret_is_read_again_by_a_warm_container_however_the_login_is_refused(
    settings: Settings, clickhouse: ClickHouseServer
) -> None:
    there = with_secret(settings, SecretString=PASSWORD)
    warm = ClickHouse(there)
    assert warm.query("SELECT 1") == [(1,)]
    # Which code a server gives depends on its version and on the kind of password.
    for code in (192, 193, 194, 516):
        refused = iter([f"Code: {code}. DB::Exception: {USER}: login refused"])

        def refuse_once(point: str, _: str, refused: Iterator[str] = refused) -> None:
            for text in refused:
                raise RuntimeError(text)

        clickhouse.hook = refuse_once
        assert warm.query("SELECT 2") == [(2,)], code
    login = clickhouse.login
    try:
        clickhouse.login = (login[0], "rotated-1")
        boto3.client("secretsmanager").put_secret_value(
            SecretId=there.clickhouse_password_secret_arn, SecretString="rotated-1"
        )
        # The secret is read again only after a login is refused.
        assert secrets.password(there) == PASSWORD
        warm.disconnect()
        assert warm.query("SELECT 2") == [(2,)]
        clickhouse.login = (login[0], "rotated-2")
        warm.disconnect()
        with pytest.raises(ClickHouseRefused, match="check CLICKHOUSE_USERNAME"):
            warm.query("SELECT 3")
    finally:
        clickhouse.login = login
        warm.disconnect()


def test_a_slow_answer_is_waited_for_longer_than_a_slow_connection(
    client: ClickHouse,
    clickhouse: ClickHouseServer,
    ask: Ask,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Connecting has a limit of its own, which must not be left on the socket."""
    monkeypatch.setattr(clickhouse_client, "CONNECT_SECONDS", 0.3)
    sent = watch(clickhouse, "insert", act=lambda: threading.Event().wait(0.5))
    for _ in ("a new connection", "a connection that was pinged"):
        client.insert("rejected_statements", ROWS)
    assert len(sent) == 2
    assert ask("SELECT count() FROM rejected_statements FINAL") == [[2]]


def test_an_insert_is_one_block_however_many_rows_it_has(
    client: ClickHouse, clickhouse: ClickHouseServer
) -> None:
    """The driver's own limit for a block is 1,048,576 rows."""
    blocks = watch(clickhouse, "block")
    client.insert("rejected_statements", {"source_line": [1] * 1_100_000})
    assert len(blocks) == 1


@pytest.mark.slow
def test_dates_are_read_and_written_without_the_drivers_table_of_them(client: ClickHouse) -> None:
    code = (
        "from xapi_etl_processor import clickhouse_client\n"
        "from clickhouse_driver.columns.datecolumn import DateColumn\n"
        "print(len(DateColumn.date_lut))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"0\n"
    ((day,),) = client.query("SELECT toDate(%(day)s)", {"day": date(2024, 2, 29)})
    assert day == date(2024, 2, 29)
