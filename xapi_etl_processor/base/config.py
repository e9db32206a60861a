"""Settings: everything the function reads from its environment, read and checked once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from xapi_etl_processor.base.errors import ConfigurationError
from xapi_etl_processor.base.telemetry import LOG_LEVELS

Converter = Callable[[str], Any]
"""Turns a variable's text into a value. Raises ValueError saying what is expected instead."""


def whole_number(most: int) -> Converter:
    """A whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) == 0:
            raise ValueError("a whole number above 0 is needed")
        if int(text) > most:
            raise ValueError(f"the largest possible value is {most}")
        return int(text)

    return read


def boolean(text: str) -> bool:
    """True or false, in any of the usual spellings."""
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("use true or false")


def one_of(choices: tuple[str, ...]) -> Converter:
    """One of a few words, in any case."""

    def read(text: str) -> str:
        for choice in choices:
            if text.upper() == choice.upper():
                return choice
        raise ValueError(f"use one of {', '.join(choices)}")

    return read


def matching(pattern: str, expected: str) -> Converter:
    """Text that the whole pattern matches."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(expected)
        return text

    return read


def host(text: str) -> str:
    """A name or an address, of IPv6 too; neither a URL nor a name with a port."""
    found = re.fullmatch(r"([\w+.-]+://)?(?:[^/@]*@)?([^/:@]+)(?::(\d+))?(?:/.*)?", text)
    if not found or found[2] == text:
        return text
    # The port in a URL of HTTP is not that of the native protocol.
    native = found[3] and not (found[1] or "").startswith("http")
    port = f" and CLICKHOUSE_PORT={found[3]}" if native else ""
    raise ValueError(f"use the name alone, CLICKHOUSE_HOST={found[2]}{port}")


def folder(text: str) -> str:
    """A prefix that ends in a slash and does not start with one; '' stands for the whole bucket."""
    return f"{text.strip('/')}/".lstrip("/")


def native_port(text: str) -> int:
    """A port, but none of ClickHouse's for HTTP, which would seem to be asleep."""
    port: int = whole_number(65_535)(text)
    if port in (8123, 8443):
        raise ValueError(
            "that is ClickHouse's port for HTTP: use the native one, 9000, or 9440 with TLS"
        )
    return port


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


IDENTIFIER = matching(
    r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and underscores only, and no digit first"
)
ACCOUNT = matching(r"[0-9]{12}", "an AWS account has 12 digits")
LEARNER_IDS = ("plain", "pseudonyms")


def _variable(
    name: str,
    about: str,
    default: Any = MISSING,
    read: Converter = str,
    *,
    secret: bool = False,
) -> Any:
    """A field read from an environment variable. A secret is not shown, and keeps its blanks."""
    metadata = {"env": name, "about": about, "read": read, "strip": not secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The function's settings, one environment variable each; read with `from_env`. The table in
    docs/configuration.md is made from them.
    """

    # fmt: off
    clickhouse_host: str = _variable(
        "CLICKHOUSE_HOST", "name or address of the ClickHouse server", read=host
    )
    clickhouse_port: int = _variable("CLICKHOUSE_PORT", "native protocol port; 9440 if secure", 9000, native_port)
    clickhouse_database: str = _variable("CLICKHOUSE_DATABASE", "database of the tables", "xapi_analytics", IDENTIFIER)
    clickhouse_username: str = _variable("CLICKHOUSE_USERNAME", "ClickHouse user", "default")
    clickhouse_password: str = _variable("CLICKHOUSE_PASSWORD", "password, for development", "", secret=True)
    clickhouse_password_secret_arn: str = _variable("CLICKHOUSE_PASSWORD_SECRET_ARN", "Secrets Manager secret that holds the password (plain text, or JSON with a `password` key); wins over `CLICKHOUSE_PASSWORD`", "")
    clickhouse_secure: bool = _variable("CLICKHOUSE_SECURE", "TLS, with the certificate verified", False, boolean)
    clickhouse_ca_certs: str = _variable("CLICKHOUSE_CA_CERTS", "file with private certificate authorities to trust", "")
    clickhouse_cluster: str = _variable("CLICKHOUSE_CLUSTER", "cluster of replicas, as in `system.clusters`: `migrate` creates replicated tables on it, and the health check requires them", "", IDENTIFIER)
    bucket: str = _variable("S3_XAPI_BUCKET_NAME", "bucket of the bundles, for bulk mode and the health check", "")
    other_buckets: tuple[str, ...] = _variable("S3_XAPI_OTHER_BUCKETS", "more buckets that may be read, separated by commas; no others are", (), names)
    bucket_owner: str = _variable("S3_XAPI_BUCKET_OWNER", "AWS account (12 digits) that must own those buckets; S3 refuses others", "", ACCOUNT)
    prefix: str = _variable("S3_XAPI_PREFIX", "folder of the bundles; nothing outside it is read; `/` is the whole bucket", "section/", folder)
    queue_url: str = _variable("SQS_QUEUE_URL", "queue that invokes the function; failed messages return to it and are retried after growing pauses", "")
    dead_letter_queue_url: str = _variable("SQS_DEAD_LETTER_QUEUE_URL", "queue for messages that no retry can help; unless this and the URL of the message's own queue are set, SQS alone handles failed messages", "")
    backfill_queue_url: str = _variable("BACKFILL_QUEUE_URL", "queue for bulk requests with the engine `queue`; also invokes the function", "")
    backfill_concurrency: int = _variable("BACKFILL_CONCURRENCY", "messages of that queue loaded at the same time, for estimates", 5, whole_number(1_000))
    environment: str = _variable("ENVIRONMENT", "dev, staging, prod: shown in logs and metrics", "dev")
    batch_rows: int = _variable("BATCH_ROWS", "rows of an insert; bounds the memory", 10_000, whole_number(1_000_000))
    learner_ids: str = _variable("LEARNER_IDS", "`plain`, or `pseudonyms`: store user ids as HMAC-SHA-256 under the learners' key, and rejected lines without their text", "plain", one_of(LEARNER_IDS))
    learner_key: str = _variable("LEARNER_KEY", "the learners' key, for development: at least 32 random characters", "", secret=True)
    learner_key_secret_arn: str = _variable("LEARNER_KEY_SECRET_ARN", "Secrets Manager secret that holds the learners' key (plain text, or JSON with a `key` key); wins over `LEARNER_KEY`", "")
    rejected_days: int = _variable("REJECTED_DAYS", "days to keep rejected lines, which are raw; `migrate` applies it", 90, whole_number(36_500))
    log_level: str = _variable("LOG_LEVEL", "DEBUG, INFO, WARNING or ERROR", "INFO", one_of(LOG_LEVELS))
    # fmt: on

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, needs_clickhouse: bool = True) -> Settings:
        """Settings from environment variables; raises ConfigurationError naming the variable."""
        values: dict[str, Any] = {}
        for item in fields(cls):
            text = environ.get(item.metadata["env"], "")
            if item.metadata["strip"]:
                text = text.strip()
            if not text:  # An empty variable counts as not set.
                continue
            try:
                values[item.name] = item.metadata["read"](text)
            except ValueError as error:
                name = item.metadata["env"]
                raise ConfigurationError(f"{name} is {text!r}: {error}") from None
        if not needs_clickhouse:
            values.setdefault("clickhouse_host", "")
        if "clickhouse_host" not in values:
            raise ConfigurationError(
                "CLICKHOUSE_HOST is not set: name the ClickHouse server to load into"
            )
        if values.get("clickhouse_secure"):
            values.setdefault("clickhouse_port", 9440)
        return cls(**values)
