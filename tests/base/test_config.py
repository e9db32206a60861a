"""Settings: their variables, defaults, limits and error messages."""

import dataclasses
import re

import pytest

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ConfigurationError

HOST = {"CLICKHOUSE_HOST": "ch.example.org"}


def test_a_host_alone_is_enough() -> None:
    settings = Settings.from_env(HOST)
    assert settings == Settings("ch.example.org")
    assert (settings.clickhouse_port, settings.clickhouse_database) == (9000, "xapi_analytics")
    assert (settings.prefix, settings.batch_rows) == ("section/", 10_000)


# Variable: its text, its field, and the field's value.
VARIABLES: dict[str, tuple[str, str, object]] = {
    "CLICKHOUSE_HOST": ("10.0.0.7", "clickhouse_host", "10.0.0.7"),
    "CLICKHOUSE_PORT": ("19000", "clickhouse_port", 19000),
    "CLICKHOUSE_DATABASE": ("lake_2", "clickhouse_database", "lake_2"),
    "CLICKHOUSE_USERNAME": ("loader", "clickhouse_username", "loader"),
    "CLICKHOUSE_PASSWORD": ("s3cret", "clickhouse_password", "s3cret"),
    "CLICKHOUSE_PASSWORD_SECRET_ARN": ("arn:p", "clickhouse_password_secret_arn", "arn:p"),
    "CLICKHOUSE_SECURE": ("true", "clickhouse_secure", True),
    "CLICKHOUSE_CA_CERTS": ("/var/task/ca.pem", "clickhouse_ca_certs", "/var/task/ca.pem"),
    "CLICKHOUSE_CLUSTER": ("pair", "clickhouse_cluster", "pair"),
    "S3_XAPI_BUCKET_NAME": ("xapi-prod", "bucket", "xapi-prod"),
    "S3_XAPI_PREFIX": ("exports/section/", "prefix", "exports/section/"),
    "S3_XAPI_OTHER_BUCKETS": ("old, older", "other_buckets", ("old", "older")),
    "S3_XAPI_BUCKET_OWNER": ("123456789012", "bucket_owner", "123456789012"),
    "SQS_QUEUE_URL": ("https://q", "queue_url", "https://q"),
    "SQS_DEAD_LETTER_QUEUE_URL": ("https://dead", "dead_letter_queue_url", "https://dead"),
    "BACKFILL_QUEUE_URL": ("https://history", "backfill_queue_url", "https://history"),
    "BACKFILL_CONCURRENCY": ("20", "backfill_concurrency", 20),
    "ENVIRONMENT": ("prod", "environment", "prod"),
    "BATCH_ROWS": ("500", "batch_rows", 500),
    "LEARNER_IDS": ("pseudonyms", "learner_ids", "pseudonyms"),
    "LEARNER_KEY": ("k" * 32, "learner_key", "k" * 32),
    "LEARNER_KEY_SECRET_ARN": ("arn:key", "learner_key_secret_arn", "arn:key"),
    "REJECTED_DAYS": ("30", "rejected_days", 30),
    "LOG_LEVEL": ("DEBUG", "log_level", "DEBUG"),
}


def test_every_variable_reaches_its_field() -> None:
    assert VARIABLES.keys() == {item.metadata["env"] for item in dataclasses.fields(Settings)}
    read = Settings.from_env({name: text for name, (text, _, _) in VARIABLES.items()})
    wanted = {field: value for _, field, value in VARIABLES.values()}
    assert {item.name: getattr(read, item.name) for item in dataclasses.fields(Settings)} == wanted


def test_a_prefix_is_a_folder() -> None:
    for text, prefix in (
        *(("exports", "exports/"), ("/exports/a", "exports/a/"), ("exports/", "exports/")),
        *(("/", ""), ("", "section/")),
    ):
        assert Settings.from_env({**HOST, "S3_XAPI_PREFIX": text}).prefix == prefix, text


@pytest.mark.check("S8")
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLICKHOUSE_PORT", "native"),
        ("CLICKHOUSE_PORT", "0"),
        ("CLICKHOUSE_PORT", "-9000"),
        ("CLICKHOUSE_PORT", "9000.0"),
        ("CLICKHOUSE_PORT", "٩٠٠٠"),
        ("CLICKHOUSE_SECURE", "maybe"),
        ("CLICKHOUSE_DATABASE", "xapi-analytics"),
        ("CLICKHOUSE_DATABASE", "x; DROP DATABASE y"),
        ("CLICKHOUSE_DATABASE", "1st"),
        ("CLICKHOUSE_DATABASE", "été"),
        ("BATCH_ROWS", "0"),
        ("BATCH_ROWS", "20_000"),
        ("BATCH_ROWS", "many"),
        ("BATCH_ROWS", "9" * 5000),
        ("S3_XAPI_BUCKET_OWNER", "12345678901"),
        ("S3_XAPI_BUCKET_OWNER", "1234567890123"),
        ("LOG_LEVEL", "LOUD"),
        ("LEARNER_IDS", "hashed"),
        ("REJECTED_DAYS", "0"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} is ") as caught:
        Settings.from_env({**HOST, variable: value})
    assert value in str(caught.value)


def test_the_highest_value_is_accepted_and_the_next_is_not() -> None:
    for variable, highest in (("CLICKHOUSE_PORT", 65_535), ("BATCH_ROWS", 1_000_000)):
        settings = Settings.from_env({**HOST, variable: str(highest)})
        assert highest in dataclasses.astuple(settings)
        with pytest.raises(ConfigurationError, match=f"largest possible value is {highest}"):
            Settings.from_env({**HOST, variable: str(highest + 1)})


def test_secure_accepts_the_usual_words_and_changes_the_port_unless_that_is_set() -> None:
    for secure, texts in (
        (True, ("1", "TRUE", "yes", "on")),
        (False, ("0", "False", "no", "off", "")),
    ):
        for text in texts:
            settings = Settings.from_env({**HOST, "CLICKHOUSE_SECURE": text})
            assert settings.clickhouse_secure is secure, text
            assert settings.clickhouse_port == (9440 if secure else 9000), text
    settings = Settings.from_env({**HOST, "CLICKHOUSE_SECURE": "true", "CLICKHOUSE_PORT": "9000"})
    assert settings.clickhouse_port == 9000
    assert Settings.from_env({**HOST, "LOG_LEVEL": "Debug"}).log_level == "DEBUG"


def test_an_empty_variable_counts_as_not_set() -> None:
    empty = {item.metadata["env"]: "" for item in dataclasses.fields(Settings)}
    assert Settings.from_env({**empty, **HOST}) == Settings.from_env(HOST)


@pytest.mark.check("S4")
def test_the_password_is_in_no_repr_and_no_error() -> None:
    environ = {**HOST, "CLICKHOUSE_PASSWORD": "hunter2"}
    settings = Settings.from_env(environ)
    assert settings.clickhouse_password == "hunter2"
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({**environ, "CLICKHOUSE_PORT": "x"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.check("S4")
def test_blanks_around_a_value_are_dropped_but_for_those_of_a_password() -> None:
    for password in (" s3cret ", " ", "s3cret\n"):
        settings = Settings.from_env({**HOST, "CLICKHOUSE_PASSWORD": password})
        assert settings.clickhouse_password == password
    padded = {"CLICKHOUSE_HOST": " ch.example.org ", "CLICKHOUSE_PORT": " 19000\n"}
    settings = Settings.from_env({**padded, "S3_XAPI_BUCKET_NAME": "\tbundles"})
    assert settings == Settings("ch.example.org", clickhouse_port=19_000, bucket="bundles")
    # An empty text between two commas is not a name.
    settings = Settings.from_env({**HOST, "S3_XAPI_OTHER_BUCKETS": " older,, oldest ,"})
    assert settings.other_buckets == ("older", "oldest")


def test_a_host_is_a_name_or_an_address_and_anything_more_is_refused_with_the_right_spelling() -> (
    None
):
    for text in ("ch", "ch.example.org", "10.0.0.7", "::1", "2001:db8::7"):
        assert Settings.from_env({"CLICKHOUSE_HOST": text}).clickhouse_host == text
    for text, said in (
        ("ch.example.org:9440", "CLICKHOUSE_HOST=ch.example.org and CLICKHOUSE_PORT=9440"),
        ("https://ch.example.org:8443/", "use the name alone, CLICKHOUSE_HOST=ch.example.org"),
        ("clickhouse://loader@ch.example.org", "CLICKHOUSE_HOST=ch.example.org"),
        ("ch.example.org/xapi", "CLICKHOUSE_HOST=ch.example.org"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(said)):
            Settings.from_env({"CLICKHOUSE_HOST": text})
    for environ in ({}, {"CLICKHOUSE_HOST": ""}, {"CLICKHOUSE_HOST": "  "}):
        with pytest.raises(ConfigurationError, match="^CLICKHOUSE_HOST is not set"):
            Settings.from_env(environ)
