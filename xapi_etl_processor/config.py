"""One frozen Settings, read from the environment once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class ConfigurationError(Exception):
    """An environment variable is missing or cannot be used; the text names it."""


@dataclass(frozen=True)
class Settings:
    """What the function is told by its environment; `from_env` is the only way it is read.

    The password never shows in a repr. Each field's metadata names its variable and says what it
    is for: the README's table is checked against it.
    """

    clickhouse_host: str = field(
        metadata={"env": "CLICKHOUSE_HOST", "about": "name or address of the ClickHouse server"}
    )
    clickhouse_port: int = field(
        default=9000,
        metadata={
            "env": "CLICKHOUSE_PORT",
            "most": 65_535,
            "about": "native protocol port; 9440 if secure",
        },
    )
    clickhouse_database: str = field(
        default="xapi_analytics",
        metadata={"env": "CLICKHOUSE_DATABASE", "about": "database of the three tables"},
    )
    clickhouse_username: str = field(
        default="default", metadata={"env": "CLICKHOUSE_USERNAME", "about": "ClickHouse user"}
    )
    clickhouse_password: str = field(
        default="",
        repr=False,
        metadata={"env": "CLICKHOUSE_PASSWORD", "about": "password, for development"},
    )
    clickhouse_password_secret_arn: str = field(
        default="",
        metadata={
            "env": "CLICKHOUSE_PASSWORD_SECRET_ARN",
            "about": "Secrets Manager secret that holds the password (plain, or JSON with a"
            " `password` key); wins over `CLICKHOUSE_PASSWORD`",
        },
    )
    clickhouse_secure: bool = field(
        default=False,
        metadata={"env": "CLICKHOUSE_SECURE", "about": "TLS, with the certificate verified"},
    )
    clickhouse_ca_certs: str = field(
        default="",
        metadata={
            "env": "CLICKHOUSE_CA_CERTS",
            "about": "file with the authorities to trust, for a private one",
        },
    )
    bucket: str = field(
        default="",
        metadata={
            "env": "S3_XAPI_BUCKET_NAME",
            "about": "bucket of the bundles: what bulk mode lists and the health check looks at",
        },
    )
    other_buckets: str = field(
        default="",
        metadata={
            "env": "S3_XAPI_OTHER_BUCKETS",
            "about": "more buckets that may be named, with commas between them; of no other is an"
            " object read",
        },
    )
    bucket_owner: str = field(
        default="",
        metadata={
            "env": "S3_XAPI_BUCKET_OWNER",
            "about": "AWS account (12 digits) that must own those buckets; S3 refuses others",
        },
    )
    prefix: str = field(
        default="section/",
        metadata={
            "env": "S3_XAPI_PREFIX",
            "about": "folder of the bundles: no object outside it is read; what bulk mode lists"
            " without `s3_prefix`; `/` is the whole bucket",
        },
    )
    environment: str = field(
        default="dev",
        metadata={"env": "ENVIRONMENT", "about": "dev, staging, prod: shown in logs and metrics"},
    )
    batch_rows: int = field(
        default=20_000,
        metadata={
            "env": "BATCH_ROWS",
            "most": 1_000_000,
            "about": "rows of one insert; bounds the memory",
        },
    )
    batch_mb: int = field(
        default=64,
        metadata={
            "env": "BATCH_MB",
            "most": 1_024,
            "about": "MiB of lines in one insert, where lines are long",
        },
    )
    s3_concurrency: int = field(
        default=16,
        metadata={
            "env": "S3_CONCURRENCY",
            "most": 100,
            "about": "small objects fetched ahead at once",
        },
    )
    max_line_mb: int = field(
        default=16,
        metadata={
            "env": "MAX_LINE_MB",
            "most": 1_024,
            "about": "MiB of a line; a longer one is refused",
        },
    )
    max_object_mb: int = field(
        default=5120,
        metadata={"env": "MAX_OBJECT_MB", "about": "MiB of an object; a larger one fails, unread"},
    )
    max_unpacked_mb: int = field(
        default=10_240,
        metadata={"env": "MAX_UNPACKED_MB", "about": "MiB in a gzip object; one with more fails"},
    )
    max_unpacked_ratio: int = field(
        default=200,
        metadata={
            "env": "MAX_UNPACKED_RATIO",
            "about": "bytes that one byte of gzip may hold on average; an object with more fails",
        },
    )
    log_level: str = field(
        default="INFO", metadata={"env": "LOG_LEVEL", "about": "DEBUG, INFO, WARNING or ERROR"}
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Settings from environment variables; raises ConfigurationError naming the variable."""
        values = {
            item.name: _value(item, text)
            for item in fields(cls)
            if (text := _text(item, environ)) != ""
        }
        if "clickhouse_host" not in values:
            raise ConfigurationError(
                "CLICKHOUSE_HOST is not set: name the ClickHouse server to load into"
            )
        if values.get("clickhouse_secure") and "clickhouse_port" not in values:
            values["clickhouse_port"] = 9440
        if "prefix" in values:
            values["prefix"] = f"{str(values['prefix']).strip('/')}/".lstrip("/")
        settings = cls(**values)  # type: ignore[arg-type]  # each value was made by its field's type
        if not _IDENTIFIER.fullmatch(settings.clickhouse_database):
            raise ConfigurationError(
                f"CLICKHOUSE_DATABASE is {settings.clickhouse_database!r}: letters, digits and"
                " underscores only, and no digit first"
            )
        if settings.log_level.upper() not in LOG_LEVELS:
            raise ConfigurationError(
                f"LOG_LEVEL is {settings.log_level!r}: use one of {', '.join(LOG_LEVELS)}"
            )
        if not re.fullmatch(r"([0-9]{12})?", settings.bucket_owner, re.ASCII):
            raise ConfigurationError(
                f"S3_XAPI_BUCKET_OWNER is {settings.bucket_owner!r}: an account's 12 digits"
            )
        return settings

    @property
    def buckets(self) -> tuple[str, ...]:
        """The buckets whose objects may be read; none where none is named."""
        named = (self.bucket, *self.other_buckets.split(","))
        return tuple(name.strip() for name in named if name.strip())

    def refusal(self, bucket: str, key: str) -> str:
        """Why what the key begins with may not be read there; '' where it may.

        Whoever may invoke the function could otherwise have any object read that its role can.
        """
        if not self.buckets:
            return "S3_XAPI_BUCKET_NAME is not set: name the bucket of the bundles"
        if bucket not in self.buckets:
            return (
                f"s3://{bucket} is not a bucket of bundles: check its name, or allow it with"
                " S3_XAPI_BUCKET_NAME or S3_XAPI_OTHER_BUCKETS"
            )
        if not key.startswith(self.prefix):
            return (
                f"s3://{bucket}/{key} is not in the folder of the bundles, {self.prefix}: check"
                " the key, or set S3_XAPI_PREFIX"
            )
        return ""


def _text(item: Field[Any], environ: Mapping[str, str]) -> str:
    text = environ.get(item.metadata["env"], "")
    # A password's spaces may be meant.
    return text if item.name == "clickhouse_password" else text.strip()


def _value(item: Field[Any], text: str) -> str | int | bool:
    if item.type == "int":
        return _positive_int(item.metadata["env"], text, item.metadata.get("most", 10**9))
    return _boolean(item.metadata["env"], text) if item.type == "bool" else text


def _positive_int(name: str, text: str, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ConfigurationError(f"{name} is {text!r}: a whole number above 0 is needed")
    if int(text) > most:
        raise ConfigurationError(f"{name} is {text}: more than {most} is not possible")
    return int(text)


def _boolean(name: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ConfigurationError(f"{name} is {text!r}: use true or false")
