"""A port or a certificate that is the wrong one is named as what it is."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trustme

from xapi_etl_processor import native_port
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.config import Settings
from xapi_etl_processor.deadlines import FOREVER
from xapi_etl_processor.errors import ClickHouseError, ClickHouseRefused, ClickHouseWaking
from xapi_etl_processor.modes import health
from xapi_etl_processor.run import Connections
from xapi_etl_processor.sources.stores import Stores

pytestmark = pytest.mark.usefixtures("own_stream")

PORT_FOR_HTTP = "is a port for HTTP: set CLICKHOUSE_PORT to the native port, usually 9000, or 9440"
NO_NATIVE_PORT = "does not speak ClickHouse's protocol: set CLICKHOUSE_PORT to the native port"


@contextmanager
def http_server(
    *, patient: bool, tls: ssl.SSLContext | None = None, status: bytes = b"200 OK"
) -> Iterator[int]:
    """A port for HTTP. A patient one, as ClickHouse's, waits for the end of the headers; the other
    answers at once.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        try:
            found = tls.wrap_socket(connection, server_side=True) if tls else connection
            with found:
                received = found.recv(1000)
                while patient and b"\r\n\r\n" not in received:
                    more = found.recv(1000)
                    if not more:
                        return
                    received += more
                found.sendall(b"HTTP/1.0 %b\r\n\r\n" % status)
        except OSError:
            return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    # A thread that waits in accept() is not woken by close().
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def settings_for(port: int, **more: str) -> Settings:
    variables = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(port)}
    return Settings.from_env(variables | {"CLICKHOUSE_WAKE_SECONDS": "1"} | more)


@pytest.mark.parametrize("patient", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_port_for_http_is_named_and_not_tried_again(patient: bool, pauses: list[float]) -> None:
    with http_server(patient=patient) as port:
        client = ClickHouse(settings_for(port))
        expected = PORT_FOR_HTTP if patient else NO_NATIVE_PORT
        with pytest.raises(ClickHouseRefused, match=f":{port}: {port} {expected}"):
            client.query("SELECT 1")
    assert pauses == []


def test_the_usual_port_for_http_is_named_before_anything_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http_server(patient=True) as port:
        monkeypatch.setattr(native_port, "HTTP_PORTS", (port,))
        settings = replace(settings_for(port), clickhouse_wake_seconds=120)
        started = time.monotonic()
        with pytest.raises(ClickHouseRefused, match=PORT_FOR_HTTP):
            ClickHouse(settings).query("SELECT 1")
        body = health.check(settings, Connections(Stores(), ClickHouse(settings)))
        assert time.monotonic() - started < 10
        assert "is a port for HTTP" in body["clickhouse"]["error"]


def test_a_port_for_http_with_tls_is_named_too() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with (
        authority.cert_pem.tempfile() as trusted,
        http_server(patient=False, tls=context) as port,
    ):
        secure = settings_for(port, CLICKHOUSE_SECURE="true", CLICKHOUSE_CA_CERTS=trusted)
        assert native_port.http_fault(secure)
        with pytest.raises(ClickHouseRefused, match=NO_NATIVE_PORT):
            ClickHouse(secure).query("SELECT 1")


def test_a_self_signed_certificate_names_the_setting() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with http_server(patient=False, tls=context) as port:
        secure = settings_for(port, CLICKHOUSE_SECURE="true")
        with pytest.raises(ClickHouseRefused, match=r"not trusted: .* in CLICKHOUSE_CA_CERTS"):
            ClickHouse(secure).query("SELECT 1")


def test_a_silent_port_is_said_to_be_waking_and_one_without_a_server_to_be_away(
    pauses: list[float],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_for(silent.getsockname()[1])
        with pytest.raises(ClickHouseWaking):
            ClickHouse(settings).query("SELECT 1", deadline=FOREVER.within(2.5))
    with pytest.raises(ClickHouseError, match="no connection"):
        ClickHouse(settings).query("SELECT 1")
    assert native_port.http_fault(settings) is None


def test_a_native_port_is_not_taken_for_one_for_http(settings: Settings) -> None:
    assert native_port.http_fault(settings) is None
    # What a server's native port tells a browser: "Port 9000 is for clickhouse-client program".
    with http_server(patient=True, status=b"400 Bad Request") as port:
        assert native_port.http_fault(settings_for(port)) is None
    with http_server(patient=True, status=b"403 Forbidden") as port:
        assert native_port.http_fault(settings_for(port))


@pytest.mark.parametrize("usual", [False, True])
def test_migrate_names_a_port_for_http(
    unmigrated: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    usual: bool,
) -> None:
    with http_server(patient=usual) as port:
        monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
        if usual:
            monkeypatch.setattr(native_port, "HTTP_PORTS", (port,))
        assert main(["migrate"]) == 1
    assert (PORT_FOR_HTTP if usual else NO_NATIVE_PORT) in capsys.readouterr().err
