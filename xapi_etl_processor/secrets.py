"""The ClickHouse password, from the environment or from AWS Secrets Manager."""

from __future__ import annotations

import json
from functools import lru_cache

from xapi_etl_processor.config import Settings
from xapi_etl_processor.deadlines import FOREVER, Deadline, call_with_deadline
from xapi_etl_processor.errors import ConfigurationError, DeadlinePassed

TIMEOUT_SECONDS = 5
"""How long one attempt may take to connect, and then to answer. Our limit."""


def password(settings: Settings, deadline: Deadline = FOREVER) -> str:
    """The password; read from Secrets Manager if an ARN is set. Raises ConfigurationError.

    A secret is kept for the life of the process, until `forget` is called.
    """
    arn = settings.clickhouse_password_secret_arn
    if not arn:
        return settings.clickhouse_password
    try:
        return call_with_deadline(deadline, lambda: _read_secret(arn))
    except DeadlinePassed as error:
        raise _unreadable(arn) from error


def forget() -> None:
    """Drop what was read, so that a rotated secret is read again."""
    _read_secret.cache_clear()


def _unreadable(arn: str) -> ConfigurationError:
    return ConfigurationError(
        f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} cannot be read: check the ARN, that the function"
        " may call secretsmanager:GetSecretValue on it, and that its network reaches Secrets"
        " Manager"
    )


@lru_cache(maxsize=4)
def _read_secret(arn: str) -> str:
    """The password in a secret: its text, or its `password` field if the text is a JSON object."""
    # Imported here, because it takes time and most local runs and tests have no secret.
    from aws_lambda_powertools.utilities.parameters import SecretsProvider
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        connect_timeout=TIMEOUT_SECONDS,
        read_timeout=TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    try:
        text = SecretsProvider(boto_config=config).get(arn)
    except (GetParameterError, BotoCoreError) as error:
        raise _unreadable(arn) from error
    if not isinstance(text, str):
        raise ConfigurationError(
            f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} holds binary data: store the password as text"
        )
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)["password"]
    except (ValueError, KeyError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ConfigurationError(
            f"CLICKHOUSE_PASSWORD_SECRET_ARN: {arn} is JSON without a `password` string"
        )
    return found
