"""Why a connection to ClickHouse was not made, where the port or the certificate is at fault."""

from __future__ import annotations

import socket
import ssl

from xapi_etl_processor.config import Settings

HTTP_PORTS = (8123, 8443)
"""ClickHouse's ports for HTTP, without and with TLS (its docs, "Network ports")."""

PROBE_SECONDS = 0.5
"""How long connecting, and the reply, may take when a port is asked whether it speaks HTTP. Our
limit: a ClickHouse that answers takes a hundredth of it."""


_NATIVE = (
    "set CLICKHOUSE_PORT to the native port, usually 9000, or 9440 with CLICKHOUSE_SECURE (8123 and"
    " 8443 are for HTTP)"
)


def fault(settings: Settings, error: Exception) -> str | None:
    """What is wrong and what to do, if the text of the error says so; else None."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            "its certificate is not trusted: if it is self-signed, or of an authority of your own,"
            " name a file with that certificate in CLICKHOUSE_CA_CERTS; else check the host's name"
        )
    if "WRONG_VERSION_NUMBER" in text:
        return (
            "the port does not speak TLS: use the native port with TLS, usually 9440, or unset"
            " CLICKHOUSE_SECURE"
        )
    if "expected Hello" in text:
        return f"{settings.clickhouse_port} does not speak ClickHouse's protocol: {_NATIVE}"
    return None


_STATUS_BYTES = len("HTTP/1.0 400")


def suspected(settings: Settings) -> str | None:
    """The same as `http_fault` for the usual ports for HTTP; None, without asking, for others.

    A server may wait on such a port for as long as one that is asleep.
    """
    return http_fault(settings) if settings.clickhouse_port in HTTP_PORTS else None


def http_fault(settings: Settings) -> str | None:
    """What to do if the port speaks HTTP; None if it does not, or does not answer in time."""
    if not _speaks_http(settings):
        return None
    return f"{settings.clickhouse_port} is a port for HTTP: {_NATIVE}"


def _speaks_http(settings: Settings) -> bool:
    """Whether the port answers a request. A native one closes, or answers 400 as if it were HTTP,
    with a text for people (ClickHouse's TCPHandler).
    """
    where = (settings.clickhouse_host, settings.clickhouse_port)
    try:
        with socket.create_connection(where, PROBE_SECONDS) as plain:
            connection = _in_tls(plain) if settings.clickhouse_secure else plain
            with connection:
                connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                answer = connection.recv(_STATUS_BYTES)
                return answer.startswith(b"HTTP/") and not answer.endswith(b" 400")
    except OSError:
        return False


def _in_tls(plain: socket.socket) -> ssl.SSLSocket:
    """The connection in TLS, without a look at the certificate: nothing of ours is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)
