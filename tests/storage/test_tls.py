"""CLICKHOUSE_SECURE means TLS with the certificate verified, and nothing less."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from clickhouse_driver import errors

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Bucket
from tests.faults.http_proxy import S3Proxy
from tests.faults.tcp_proxy import Fault, tcp_proxy
from tests.support import version_0_1
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import ClickHouseError, S3Error
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.modes import health
from xapi_etl_processor.run import Connections
from xapi_etl_processor.s3 import client as stores
from xapi_etl_processor.s3 import fetch
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.objects import S3Object


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """The only certificate authority that is trusted."""
    made = trustme.CA()
    made.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return made


@pytest.fixture
def trusting(settings: Settings, authority: trustme.CA, tmp_path: Path) -> Settings:
    """Settings to use TLS, and to trust the authority."""
    return replace(
        settings,
        clickhouse_host="localhost",
        clickhouse_secure=True,
        clickhouse_ca_certs=str(tmp_path / "ca.pem"),
    )


def with_tls(stack: ExitStack, authority: trustme.CA, port: int, name: str = "localhost") -> int:
    """A port that speaks TLS, with a certificate for this name, and forwards to another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return stack.enter_context(tcp_proxy(port, context)).port


@pytest.fixture
def proxies() -> Iterator[ExitStack]:
    """Closes what a test opens in it."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.slow
@pytest.mark.fault(20, caught_by="TLS; ranged GET of the rest")
@pytest.mark.parametrize("size", [fetch.SMALL_BYTES, fetch.SMALL_BYTES + fetch.PART_BYTES])
def test_a_byte_that_is_changed_on_its_way_from_s3_is_noticed(
    bucket: Bucket,
    store: S3Proxy,
    authority: trustme.CA,
    proxies: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    body = os.urandom(size)
    obj = S3Object(bucket.name, bucket.put("a.jsonl", body=body), "x", size)
    with tcp_proxy(with_tls(proxies, authority, store.server_address[1])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{proxy.port}")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        for times in (1, 1000):
            proxy.fault = Fault(damage_after=100_000, times=times)
            ((_, found),) = fetch.bodies(Stores(), [obj])
            if times == 1:
                assert b"".join(found) == body
            else:
                with pytest.raises(S3Error, match="could not be read to its end"):
                    list(found)
            assert proxy.fault.fired


@pytest.mark.check("S6")
def test_s3_must_have_a_certificate_that_is_trusted_which_a_profile_may_name(
    bucket: Bucket,
    store: S3Proxy,
    authority: trustme.CA,
    proxies: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read() -> list[bytes]:
        found = fetch.bodies(Stores(), [S3Object(bucket.name, "a.jsonl")])
        return [b"".join(body) for _, body in found]

    port = with_tls(proxies, authority, store.server_address[1])
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{port}")
    bucket.put("a.jsonl", body=b"body")
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setattr(stores, "ATTEMPTS", 1)
    for bundle in ("", str(tmp_path / "other.pem")):
        monkeypatch.setenv("AWS_CA_BUNDLE", bundle)
        with pytest.raises(S3Error, match="S3 is out of reach: UnknownIssuer"):
            read()
    assert store.requests == []
    monkeypatch.delenv("AWS_CA_BUNDLE")
    (tmp_path / "config").write_text(f"[profile own]\nca_bundle = {tmp_path / 'ca.pem'}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "own")
    assert read() == [b"body"]


@pytest.mark.slow
@pytest.mark.check("S6")
def test_a_certificate_that_is_trusted_and_names_the_host_is_accepted_also_by_migrations(
    trusting: Settings,
    clickhouse: ClickHouseServer,
    authority: trustme.CA,
    proxies: ExitStack,
) -> None:
    port, new = with_tls(proxies, authority, clickhouse.port), f"{trusting.clickhouse_database}_new"
    there = replace(trusting, clickhouse_port=port, clickhouse_database=new)
    version_0_1.create(there)
    client = ClickHouse(there)
    assert client.query(f"SELECT count() FROM {new}.video_events") == [(0,)]
    client.disconnect()
    clickhouse.engine.query(f"DROP DATABASE {new}")
    with pytest.raises(errors.NetworkError):
        migrate(replace(there, clickhouse_ca_certs=""))


_NOT_TRUSTED = "its certificate is not trusted: .* name a file .* in CLICKHOUSE_CA_CERTS"


@pytest.mark.fault(66, caught_by="health check")
@pytest.mark.check("S6")
@pytest.mark.parametrize(
    ("there", "said", "reason"),
    [
        ("another authority", _NOT_TRUSTED, "unable to get local issuer certificate"),
        ("another name", _NOT_TRUSTED, "not valid for 'localhost'"),
        ("no TLS at all", "the port does not speak TLS: ", "WRONG_VERSION_NUMBER"),
    ],
)
def test_any_other_certificate_and_no_tls_are_refused(
    trusting: Settings,
    clickhouse: ClickHouseServer,
    authority: trustme.CA,
    proxies: ExitStack,
    pauses: list[float],
    there: str,
    said: str,
    reason: str,
) -> None:
    port = clickhouse.port
    if there == "another authority":
        port = with_tls(proxies, trustme.CA(), port)
    elif there == "another name":
        port = with_tls(proxies, authority, port, "elsewhere.example.org")
    secured = replace(trusting, clickhouse_port=port)
    with pytest.raises(ClickHouseError, match=f"localhost:{port}: {said}"):
        ClickHouse(secured).query("SELECT 1")
    started = time.monotonic()
    body = health.check(secured, Connections(Stores(), ClickHouse(secured)))
    assert time.monotonic() - started < 10
    assert (body["healthy"], body["clickhouse"]["ok"]) == (False, False)
    assert re.search(f"localhost:{port}: {said}", body["clickhouse"]["error"])
    # The reason is given too: the certificate, the name, or no TLS.
    assert reason in body["clickhouse"]["error"]


@pytest.mark.check("S6")
def test_an_unencrypted_network_connection_causes_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for host, secure in (("localhost", False), ("a.invalid", True), ("nowhere.invalid", False)):
        client = ClickHouse(Settings(host, clickhouse_port=1, clickhouse_secure=secure))
        with pytest.raises(ClickHouseError):
            client.query("SELECT 1", deadline=Deadline(0))
    warned = [r for r in caplog.records if r.message.startswith("password and statements go")]
    assert [record.__dict__["host"] for record in warned] == ["nowhere.invalid"]
