"""What is held of a learner is shown whole, and rejected lines do not stay for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.cli import main
from xapi_etl_processor.storage.tables import TYPES

pytestmark = pytest.mark.usefixtures("own_stream")

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
BAD = b'{"actor": {"account": {"name": "viewer-1"}}, "verb": "\xff'


def access(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    capsys.readouterr()
    assert main(["access", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_row_of_a_learner_is_shown_with_all_its_columns(
    bucket: Bucket, invoke: Invoke, capsys: pytest.CaptureFixture[str]
) -> None:
    key = bucket.put(KEY, video(1), video(2), BAD)
    invoke({"bucket": bucket.name, "key": key})
    found = access(capsys, "--user", "viewer-1")
    assert found["forgotten"] is False
    [row] = found["stored"]["video_events"]
    assert row.keys() >= TYPES["video_events"].keys()
    assert (row["user_id"], row["video_time"], row["source_line"]) == ("viewer-1", 0.5, 1)
    assert row["timestamp"] == "2024-01-01 12:00:00+00:00"
    [rejected] = found["stored"]["rejected_statements"]
    assert (rejected["source_file"], rejected["source_line"]) == (bucket.uri(KEY), 3)
    assert '"name": "viewer-1"' in rejected["line"]


def test_of_a_learner_who_is_unknown_nothing_is_shown_and_it_is_said(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["access", "--user", "nobody"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["stored"] == {"video_events": [], "rejected_statements": []}
    assert "nothing is stored of this learner" in said.err


def test_a_learner_who_was_forgotten_is_said_to_be(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["forget", "--yes", "--user", "viewer-1"]) == 0
    assert access(capsys, "--user", "viewer-1")["forgotten"] is True
    assert access(capsys, "--user", "viewer-2")["forgotten"] is False


def life(ask: Ask) -> str:
    """How long rejected lines are kept, as the table says."""
    [(engine,)] = ask(
        "SELECT engine_full FROM system.tables WHERE name = 'rejected_statements'"
        " AND database = currentDatabase()"
    )
    return str(engine).partition("TTL ")[2].partition(" SETTINGS")[0]


@pytest.mark.slow
def test_rejected_lines_are_kept_for_ninety_days_or_as_long_as_is_set(
    unmigrated: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["migrate"]) == 0
    assert life(ask) == "toDateTime(rejected_at) + toIntervalDay(90)"
    monkeypatch.setenv("REJECTED_DAYS", "7")
    assert main(["migrate"]) == 0
    assert life(ask) == "toDateTime(rejected_at) + toIntervalDay(7)"
    ask(
        "INSERT INTO rejected_statements (source_line, rejected_at) VALUES"
        " (1, now64(3) - INTERVAL 8 DAY), (2, now64(3) - INTERVAL 6 DAY)"
    )
    ask("OPTIMIZE TABLE rejected_statements FINAL")
    assert ask("SELECT source_line FROM rejected_statements") == [[2]]
