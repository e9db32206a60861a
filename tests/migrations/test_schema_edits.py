"""Migrations that were edited later: databases from before become like new ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_migrations.exceptions import MigrationException

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Template
from tests.support import former_schema
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseRefused
from xapi_etl_processor.migrations import migrate as migrations
from xapi_etl_processor.migrations.migrate import migrate
from xapi_etl_processor.storage import tables

pytestmark = pytest.mark.slow


def test_an_applied_file_that_was_edited_otherwise_is_refused(
    unmigrated: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    former_schema.create(unmigrated, upto=1)
    monkeypatch.setattr(migrations, "FORMER_MD5", {})
    with pytest.raises(MigrationException, match="md5"):
        migrate(unmigrated)


def test_the_health_check_asks_the_views_that_no_other_is_made_of() -> None:
    script = migrations.views()
    made = re.findall(r"^CREATE OR REPLACE VIEW (\w+)", script, re.M)
    assert made == list(tables.VIEWS)
    inner = set(re.findall(r"FROM (\w+)", script))
    assert [view for view in made if view not in inner] == list(tables.OUTER_VIEWS)


def test_a_view_that_the_server_refuses_to_read_is_named_with_its_version(
    unmigrated: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Versions 25.5 and 25.8 took views that they could not read."""
    (views := tmp_path / "views.sql").write_text(
        "CREATE OR REPLACE VIEW good AS\nSELECT 1 AS one;\n"
        "CREATE OR REPLACE VIEW bad AS\nSELECT one FROM good;\n"
        "CREATE OR REPLACE VIEW good AS\nSELECT 2 AS other;\n"
    )
    monkeypatch.setattr(migrations, "VIEWS", views)
    with pytest.raises(ClickHouseRefused, match=r"ClickHouse \d+\..* the view bad \(code 47\)"):
        migrate(unmigrated)


LEARNER_STEPS = (
    "CREATE TABLE IF NOT EXISTS {}.forgotten_learners_old",
    "INSERT INTO {}.forgotten_learners_old",
    "EXCHANGE TABLES {}.forgotten_learners AND",
    "INSERT INTO {}.forgotten_learners (learner",
    "DROP TABLE {}.forgotten_learners_old",
)
"""What migrating does to a list of forgotten learners that has no key."""


@pytest.mark.ci
@pytest.mark.parametrize("killed", [(3,), (0, 1, 2, 3, 4)])
def test_a_database_of_before_the_edits_becomes_like_a_new_one_and_keeps_its_learners(
    unmigrated: Settings,
    ask: Ask,
    template: Template,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
    killed: tuple[int, ...],
) -> None:
    """Also if migrating is killed once at some steps while a learner is being forgotten."""
    former = former_schema.create(unmigrated, upto=5)
    for number in (1, 2, 3, 5):
        assert former[number] == migrations.FORMER_MD5[number]
    # The fourth file had more views then.
    monkeypatch.setitem(migrations.FORMER_MD5, 4, former[4])
    ask("INSERT INTO forgotten_learners (learner, name) VALUES ('a', 'A'), ('a', 'A'), ('b', 'B')")
    ask("INSERT INTO forgotten_learners (again) VALUES (true)")
    before, after = unmigrated.clickhouse_database, f"{unmigrated.clickhouse_database}_restored"
    steps = [step.format(before) for step in LEARNER_STEPS]
    seen: list[int] = []

    def hook(point: str, sql: str) -> None:
        for number, step in enumerate(steps):
            if point == "query" and sql.startswith(step):
                ask(f"INSERT INTO forgotten_learners (learner) VALUES ('at step {number}')")
                if number in killed and number not in seen:
                    seen.append(number)
                    raise ConnectionAbortedError

    clickhouse.hook = hook
    for _ in killed:
        with pytest.raises(EOFError):
            migrate(unmigrated)
    assert migrate(unmigrated) == ["0006_notes.sql", "0007_summaries.sql"]
    clickhouse.hook = lambda *_: None
    assert tuple(seen) == killed
    kept = "SELECT learner, name, again FROM forgotten_learners FINAL ORDER BY learner"
    meanwhile = [[f"at step {number}", "", False] for number in range(len(steps))]
    assert ask(kept) == [["", "", True], ["a", "A", False], *meanwhile, ["b", "B", False]]
    made = former_schema.creates(ask, before)
    assert made == former_schema.creates(ask, template.database)
    assert not any("deduplication_window" in sql for sql, _ in made)

    # The views name their database, which may be renamed.
    clickhouse.engine.query(f"RENAME DATABASE {before} TO {after}")
    try:
        assert migrate(replace(unmigrated, clickhouse_database=after)) == []
        found = clickhouse.engine.query(f"SELECT count() FROM {after}.video_engagement", "TSV")
        assert found.bytes() == b"0\n"
    finally:
        clickhouse.engine.query(f"DROP DATABASE {after}")
