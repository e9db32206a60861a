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
    return http_fault(settings) if "expected Hello" in text else None


def suspected(settings: Settings) -> str | None:
    """The same as `http_fault` for the usual ports for HTTP; None, without asking, for others.

    A server may wait on such a port for as long as one that is asleep.
    """
    return http_fault(settings) if settings.clickhouse_port in HTTP_PORTS else None


def http_fault(settings: Settings) -> str | None:
    """What to do if the port speaks HTTP; None if it does not, or does not answer in time."""
    if not _speaks_http(settings):
        return None
    return (
        f"{settings.clickhouse_port} is a port for HTTP: set CLICKHOUSE_PORT to the native one,"
        " usually 9000, or 9440 with CLICKHOUSE_SECURE"
    )


def _speaks_http(settings: Settings) -> bool:
    """Whether the port answers a request, which a native port does not understand."""
    where = (settings.clickhouse_host, settings.clickhouse_port)
    try:
        with socket.create_connection(where, PROBE_SECONDS) as plain:
            connection = _in_tls(plain) if settings.clickhouse_secure else plain
            with connection:
                connection.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def _in_tls(plain: socket.socket) -> ssl.SSLSocket:
    """The connection in TLS, without a look at the certificate: nothing of ours is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)
