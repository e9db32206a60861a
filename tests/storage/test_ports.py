"""A port or a certificate that is the wrong one is named as what it is."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest
import trustme

from local.lifetime import POLL_SECONDS
from tests.support.samples import context
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import (
    ClickHouseRefused,
    ConfigurationError,
)
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.lambda_function import handler

pytestmark = pytest.mark.usefixtures("own_stream")

NO_NATIVE_PORT = "does not speak ClickHouse's protocol: set CLICKHOUSE_PORT to the native port"


class _AnswersAtOnce(BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1000)
        self.request.sendall(b"HTTP/1.0 200 OK\r\n\r\n")


@contextmanager
def http_server(tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port for HTTP."""
    with ThreadingTCPServer(("127.0.0.1", 0), _AnswersAtOnce) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def settings_for(port: int, **more: str) -> Settings:
    variables = {"CLICKHOUSE_HOST": "127.0.0.1", "CLICKHOUSE_PORT": str(port)}
    return Settings.from_env(variables | more)


def test_a_port_for_http_is_named_and_not_tried_again(
    unmigrated: Settings,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with http_server() as port:
        with pytest.raises(ClickHouseRefused, match=f":{port}: {port} {NO_NATIVE_PORT}"):
            ClickHouse(settings_for(port)).query("SELECT 1")
        assert pauses == []
        monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
        assert main(["migrate"]) == 1
    assert NO_NATIVE_PORT in capsys.readouterr().err
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as trusted, http_server(tls=context) as port:
        secure = settings_for(port, CLICKHOUSE_SECURE="true", CLICKHOUSE_CA_CERTS=trusted)
        with pytest.raises(ClickHouseRefused, match=NO_NATIVE_PORT):
            ClickHouse(secure).query("SELECT 1")


def test_the_usual_ports_for_http_are_refused_before_anything_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLICKHOUSE_HOST", "127.0.0.1")
    for port in (8123, 8443):
        with pytest.raises(ConfigurationError, match="ClickHouse's port for HTTP: use the native"):
            settings_for(port)
        monkeypatch.setenv("CLICKHOUSE_PORT", str(port))
        body = json.loads(handler({"health_check": True}, context())["body"])
        assert "CLICKHOUSE_PORT" in body["clickhouse"]["error"]
