"""What is held of a learner is shown whole, and rejected lines do not stay for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Ask, Cli, Template
from tests.support.dirty import ALL, HOME_PAGE, OTHER_PAGE, Dirty
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations import migrate
from xapi_etl_processor.storage.tables import TYPES


def test_every_statement_and_rejected_line_of_a_learner_is_shown_once_with_all_columns(
    on_dirty: Dirty, cli: Cli
) -> None:
    found = cli("access", "--user", "viewer-0").json
    assert found["forgotten"] is False
    rows = found["stored"]["video_events"]
    assert [row["source_line"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0].keys() >= TYPES["video_events"].keys()
    second = rows[1]
    assert (second["user_id"], second["video_time"]) == ("viewer-0", 30.0)
    assert second["timestamp"] == "2024-03-01 12:00:30+00:00"
    [rejected] = found["stored"]["rejected_statements"]
    assert (rejected["source_file"], rejected["source_line"]) == (on_dirty.uri(ALL), 24)
    assert '"name": "viewer-0"' in rejected["line"]
    # With --home-page, only that home page.
    for options, pages in (
        ((), [HOME_PAGE] * 3 + [OTHER_PAGE] * 2),
        (("--home-page", OTHER_PAGE), [OTHER_PAGE] * 2),
    ):
        found = cli("access", "--user", "viewer-3", *options).json
        assert [row["home_page"] for row in found["stored"]["video_events"]] == pages
    # The command says so if there is nothing.
    nothing = "nothing is stored of this learner"
    said = cli("access", "--user", "nobody")
    assert said.json["stored"] == {"video_events": [], "rejected_statements": []}
    assert nothing in said.err
    assert nothing not in cli("access", "--user", "gus").err


def test_a_learner_who_was_forgotten_is_said_to_be(settings: Settings, cli: Cli) -> None:
    cli("forget", "--yes", "--user", "viewer-1")
    assert cli("access", "--user", "viewer-1").json["forgotten"] is True
    assert cli("access", "--user", "viewer-2").json["forgotten"] is False


@pytest.mark.slow
def test_rejected_lines_are_kept_for_ninety_days_or_as_long_as_is_set(
    settings: Settings,
    template: Template,
    ask: Ask,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def kept_for(days: int) -> bool:
        [(engine,)] = ask(
            "SELECT engine_full FROM system.tables WHERE name = 'rejected_statements'"
            " AND database = currentDatabase()"
        )
        return f" TTL toDateTime(rejected_at) + toIntervalDay({days}) SETTINGS" in engine

    assert kept_for(90)
    applied = f"{template.database}.schema_versions"
    ask(f"CREATE TABLE schema_versions AS {applied}")
    ask(f"INSERT INTO schema_versions SELECT * FROM {applied}")
    (tmp_path / "no_views.sql").write_text("")
    monkeypatch.setattr(migrate, "VIEWS", tmp_path / "no_views.sql")
    monkeypatch.setenv("REJECTED_DAYS", "7")
    cli("migrate")
    assert kept_for(7)
    ask(
        "INSERT INTO rejected_statements (source_line, rejected_at) VALUES"
        " (1, now64(3) - INTERVAL 8 DAY), (2, now64(3) - INTERVAL 6 DAY)"
    )
    ask("OPTIMIZE TABLE rejected_statements FINAL")
    assert ask("SELECT source_line FROM rejected_statements") == [[2]]
