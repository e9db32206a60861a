"""Proxies in front of the engines that all tests use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Bucket, forget_connections
from tests.faults.http_proxy import S3Proxy, s3_proxy
from tests.faults.tcp_proxy import TcpProxy, tcp_proxy
from xapi_etl_processor.config import Settings


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
