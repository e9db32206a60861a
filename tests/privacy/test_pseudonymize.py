"""With LEARNER_IDS=pseudonyms no learner's name is stored anywhere, and viewers still count."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Cli, Invoke, forget_connections
from tests.privacy.conftest import (
    LATER,
    Load,
    at_the_second_look,
)
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ConfigurationError, EventFailed
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.privacy import forget as forgetting
from xapi_etl_processor.privacy import pseudonymize as command
from xapi_etl_processor.privacy.learner import Learner

pytestmark = pytest.mark.slow

NAME = "canary7f3e"
LEARNER_KEY = "0123456789abcdef0123456789abcdef"
PSEUDONYM = "hmac:" + hmac.digest(LEARNER_KEY.encode(), b"user\0canary7f3e", hashlib.sha256).hex()

Set = Callable[..., None]


def by(number: int, name: str = NAME, **more: Any) -> dict[str, Any]:
    """A statement with the name in every form that an actor can have, and the first that counts."""
    agent = {
        "name": name,
        "account": {"name": name, "homePage": "https://lms.example.org"},
        "mbox": f"mailto:{name}@example.org",
        "mbox_sha1sum": name,
        "openid": f"https://{name}.example.org",
    }
    return video(number, actor=agent, authority=agent, **more)


BAD = json.dumps({k: v for k, v in by(9).items() if k != "verb"}).encode()


@pytest.fixture
def set_variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Set]:
    def set_variables(**variables: str) -> None:
        forget_connections()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    yield set_variables
    forget_connections()


@pytest.fixture
def pseudonyms(set_variables: Set) -> None:
    set_variables(LEARNER_IDS="pseudonyms", LEARNER_KEY=LEARNER_KEY)


COMMANDS = "SELECT command FROM system.mutations WHERE database = currentDatabase()"


def holding(name: str, ask: Ask) -> set[str]:
    """Each table.column that has the name somewhere, of all that are there."""
    tables = ask(
        "SELECT table, groupArray(name) FROM system.columns WHERE database = currentDatabase()"
        " AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase()"
        " AND engine NOT LIKE '%View') GROUP BY table"
    )
    assert len(tables) >= 5
    found = set()
    for table, columns in tables:
        counts = (f"countIf(position(ifNull(toString({c}), ''), '{name}') > 0)" for c in columns)
        (row,) = ask(f"SELECT {', '.join(counts)} FROM {table}")
        found |= {f"{table}.{column}" for column, count in zip(columns, row, strict=True) if count}
    return found


@pytest.mark.usefixtures("pseudonyms")
def test_with_pseudonyms_no_table_has_a_name_and_viewers_can_be_counted(
    load: Load, ask: Ask
) -> None:
    lines = by(1), BAD, video(2, actor={"mbox": f"mailto:{NAME}@x.org"}), by(3), by(4, "another")
    answer = load(*lines)
    assert (answer["video_events_processed"], answer["rejected_lines"]) == (4, 1)
    load(by(5), video(6, actor={"name": "nobody knows"}), key=LATER)
    assert holding(NAME, ask) == set()
    assert ask("SELECT source_line, line FROM rejected_statements") == [[2, ""]]
    assert ask(f"SELECT count() FROM video_events WHERE user_id = '{PSEUDONYM}'") == [[3]]
    # Who has no identifier gets no pseudonym either: all of them would seem to be one viewer.
    assert ask("SELECT uniqExact(user_id), countIf(user_id = '') FROM video_events") == [[4, 1]]


@pytest.mark.usefixtures("pseudonyms")
def test_a_learner_with_a_pseudonym_is_found_exported_and_forgotten_also_by_a_sweep(
    load: Load, ask: Ask, cli: Cli
) -> None:
    load(by(1), by(2, "another"))
    ask("CREATE TABLE backup AS video_events")
    ask("INSERT INTO backup SELECT * FROM video_events")
    held = cli("access", "--user", NAME).json["stored"]["video_events"]
    assert [row["user_id"] for row in held] == [PSEUDONYM]
    assert cli("forget", "--yes", "--user", NAME).json["rows_removed"] == 1
    answer = load(by(1), by(2, "another"), force_reprocess=True)
    assert answer["forgotten_events"] == 1
    ids = f"SELECT countIf(user_id = '{PSEUDONYM}'), uniqExact(user_id) FROM video_events"
    assert ask(ids) == [[0, 1]]
    assert holding(NAME, ask) == set()
    ask("INSERT INTO video_events SELECT * FROM backup")
    assert cli("forget", "--sweep").json["rows_removed"] == 1
    assert ask(ids) == [[0, 1]]


@pytest.mark.usefixtures("pseudonyms")
def test_somebody_who_is_forgotten_while_a_batch_waits_is_found_by_the_pseudonym(
    load: Load, ask: Ask, clickhouse: ClickHouseServer, settings: Settings
) -> None:
    """The batch has pseudonyms only when the list is read the second time."""

    def forget_with_the_key() -> None:
        with_key = replace(settings, learner_ids="pseudonyms", learner_key=LEARNER_KEY)
        other = ClickHouse(with_key)
        forgetting.forget([Learner(NAME)], other)
        other.disconnect()

    looks = at_the_second_look(clickhouse, forget_with_the_key)
    with pytest.raises(EventFailed, match="a learner was forgotten"):
        load(by(1), by(2, "another"))
    assert len(looks) == 2
    assert load(by(1), by(2, "another"))["forgotten_events"] == 1
    assert ask(f"SELECT countIf(user_id = '{PSEUDONYM}'), count() FROM video_events") == [[0, 1]]


def test_what_was_stored_before_is_rewritten_and_what_is_loaded_again_is_the_same_row(
    load: Load,
    ask: Ask,
    cli: Cli,
    set_variables: Set,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each mutation changes one id, and the table of version 0.1 changes too. A row without an id
    stays without one.
    """
    monkeypatch.setattr(command, "AT_ONCE", 1)
    # Who was forgotten before stays forgotten.
    cli("forget", "--yes", "--user", "somebody")
    tricky = "it's \\ tricky"
    lines = by(1), by(2, tricky), video(3, actor={"name": "nobody knows"}), BAD
    load(*lines)
    ask("CREATE TABLE video_events_old AS video_events")
    ask(f"INSERT INTO video_events_old SELECT * FROM video_events WHERE user_id = '{NAME}'")
    ask("INSERT INTO load_notes (kind, subject) VALUES ('overtaken', 'pseudonymize')")
    plain = {"video_events.user_id", "video_events_old.user_id", "rejected_statements.line"}
    assert holding(NAME, ask) == plain
    assert "LEARNER_IDS is not pseudonyms" in cli("pseudonymize", code=2).err
    set_variables(LEARNER_IDS="pseudonyms", LEARNER_KEY=LEARNER_KEY)
    counted = {"user_ids": 3, "rejected_lines": 1}
    notes = "SELECT kind FROM load_notes ORDER BY kind"
    for _ in range(2):
        assert cli("pseudonymize", "--dry-run").json == {**counted, "dry_run": True}
        assert ask(notes) == [["overtaken"]]
    assert holding(NAME, ask) == plain
    assert cli("pseudonymize").json == {**counted, "dry_run": False}
    assert ask(notes) == [["learner_ids"]]
    assert holding(NAME, ask) == holding("tricky", ask) == set()
    assert NAME not in str(ask(COMMANDS))
    load(*lines, force_reprocess=True)
    rows = ask("SELECT user_id FROM video_events FINAL ORDER BY source_line")
    assert (rows[0], rows[2], len(rows)) == ([PSEUDONYM], [""], 3)
    assert cli("pseudonymize").json == {"user_ids": 0, "rejected_lines": 0, "dry_run": False}
    assert load(by(7, "somebody"), key=LATER)["forgotten_events"] == 1


@pytest.mark.ci
def test_without_the_key_that_was_used_nothing_is_loaded_and_no_command_changes_anything(
    load: Load,
    invoke: Invoke,
    ask: Ask,
    cli: Cli,
    set_variables: Set,
) -> None:
    set_variables(LEARNER_KEY=LEARNER_KEY)
    cli("forget", "--yes", "--user", "someone")
    for key in ("", "f" * 32):
        set_variables(LEARNER_KEY=key)
        with pytest.raises((ConfigurationError, EventFailed), match="set that key again"):
            load(by(1))
        assert "LEARNER_KEY" in invoke({"health_check": True})["clickhouse"]["error"]
    set_variables(LEARNER_IDS="pseudonyms")
    for arguments in ["forget", "--yes", "--user", "another"], ["pseudonymize"]:
        assert "set that key again" in cli(*arguments, code=2).err
    assert ask("SELECT uniqExact(key_id) FROM forgotten_learners") == [[1]]
    assert ask("SELECT count() FROM video_events") == [[0]]
    set_variables(LEARNER_KEY=LEARNER_KEY)
    assert load(by(1))["success"]
    # Without a key, every command fails. None may report that nothing was found.
    set_variables(LEARNER_IDS="plain", LEARNER_KEY="")
    ask("TRUNCATE TABLE forgotten_learners")
    for arguments in ["forget", "--yes"], ["forget", "--dry-run"], ["access"]:
        said = cli(*arguments, "--user", NAME, code=2).err
        assert "LEARNER_KEY_SECRET_ARN is not set, and video_events has" in said, arguments
    assert ask("SELECT count() FROM forgotten_learners") == [[0]]


def test_the_key_comes_from_a_secret_and_without_a_good_one_nothing_is_stored(
    load: Load, invoke: Invoke, ask: Ask, set_variables: Set
) -> None:
    set_variables(LEARNER_IDS="pseudonyms")
    for variables, said in (
        ({}, "set LEARNER_KEY_SECRET_ARN"),
        ({"LEARNER_KEY": "short"}, "LEARNER_KEY: the key has 5 characters"),
    ):
        set_variables(**variables)
        with pytest.raises((ConfigurationError, EventFailed), match=said):
            load(by(1))
        assert said in invoke({"health_check": True})["clickhouse"]["error"]
    assert ask("SELECT count() FROM video_events") == [[0]]
    client = boto3.client("secretsmanager")
    for number, text in enumerate((LEARNER_KEY, json.dumps({"key": LEARNER_KEY}))):
        arn = client.create_secret(Name=f"key-{time.monotonic_ns()}", SecretString=text)["ARN"]
        set_variables(LEARNER_KEY="", LEARNER_KEY_SECRET_ARN=arn)
        load(by(number), key=f"section/1/video/{number}.jsonl")
    assert ask("SELECT user_id, count() FROM video_events GROUP BY 1") == [[PSEUDONYM, 2]]
