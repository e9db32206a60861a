"""The ClickHouse password and the learners' key, from the environment or AWS Secrets Manager."""

from __future__ import annotations

import json

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline, call_with_deadline
from xapi_etl_processor.base.errors import ConfigurationError, DeadlinePassed

TIMEOUT_SECONDS = 5
"""How long one attempt may take to connect, and then to answer. Our limit."""

ATTEMPTS = 2
"""How often one request is tried. Our limit."""

_kept: dict[tuple[str, str], str] = {}
"""ARN of a secret and field -> its text, for the life of the process."""

MIN_KEY_CHARACTERS = 32
"""The shortest key for learners' ids. Our limit: as many as the hash has bytes (RFC 2104, 3)."""


def password(settings: Settings, deadline: Deadline = FOREVER) -> str:
    """The password; from Secrets Manager if an ARN is set. Raises ConfigurationError."""
    arn = settings.clickhouse_password_secret_arn
    if not arn:
        return settings.clickhouse_password
    return _secret("CLICKHOUSE_PASSWORD_SECRET_ARN", arn, "password", deadline)


def learner_key(settings: Settings, deadline: Deadline = FOREVER) -> bytes:
    """The key for hashes of learners' ids, b"" if none is set. Raises as `password` does, and for
    a short key.
    """
    name, key = "LEARNER_KEY", settings.learner_key
    if arn := settings.learner_key_secret_arn:
        name = "LEARNER_KEY_SECRET_ARN"
        key = _secret(name, arn, "key", deadline)
    if key and len(key) < MIN_KEY_CHARACTERS:
        raise ConfigurationError(
            f"{name}: the key has {len(key)} characters: use at least {MIN_KEY_CHARACTERS} random"
            " ones, such as those of `openssl rand -hex 32`"
        )
    return key.encode()


def forget_password(settings: Settings) -> None:
    """Drop the password, so that a rotated one is read again; the learners' key is kept."""
    _kept.pop((settings.clickhouse_password_secret_arn, "password"), None)


def _secret(variable: str, arn: str, field: str, deadline: Deadline) -> str:
    if (text := _kept.get((arn, field))) is None:
        try:
            text = call_with_deadline(deadline, lambda: _read_secret(variable, arn, field))
        except DeadlinePassed as error:
            raise _unreadable(variable, arn, error) from error
        _kept[arn, field] = text
    return text


def _unreadable(variable: str, arn: str, error: Exception) -> ConfigurationError:
    from botocore.exceptions import HTTPClientError

    answer = getattr(error, "response", None)
    reason = answer["Error"]["Code"] if answer else type(error).__name__
    advice = "check the ARN, AWS's credentials and region, and secretsmanager:GetSecretValue on it"
    if isinstance(error, HTTPClientError | DeadlinePassed):
        reason = f"no whole answer, {reason}"
        advice = "check that the function's network reaches Secrets Manager; if so, try again"
    return ConfigurationError(f"{variable}: {arn} cannot be read ({reason}): {advice}")


def _read_secret(variable: str, arn: str, field: str) -> str:
    """The text of a secret, or the text of a field of it if it is a JSON object."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        manager = aws.client("secretsmanager", TIMEOUT_SECONDS, TIMEOUT_SECONDS, ATTEMPTS)
        text = manager.get_secret_value(SecretId=arn).get("SecretString")
    except (ClientError, BotoCoreError) as error:
        raise _unreadable(variable, arn, error) from error
    if not isinstance(text, str):
        raise ConfigurationError(f"{variable}: {arn} holds binary data: store the {field} as text")
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)[field]
    except (ValueError, KeyError, RecursionError):
        found = None
    if not isinstance(found, str):
        raise ConfigurationError(f"{variable}: {arn} is JSON without a `{field}` string")
    return found
