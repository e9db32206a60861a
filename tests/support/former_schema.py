"""The migrations as they were before they were edited: with windows of deduplication, and views."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import Ask
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.migrations import migrate

_WINDOW = "SETTINGS non_replicated_deduplication_window = 10000;"
_FSYNC = "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;"
_LEDGER = "ORDER BY (bucket, key, etag)"
_STATEMENTS = """
-- What people read with: each statement once, without those that were voided.
CREATE OR REPLACE VIEW video_statements AS
SELECT * FROM video_events FINAL
WHERE event_id NOT IN (SELECT voided_id FROM voided_statements);
"""
_A_VIEW = "\nCREATE OR REPLACE VIEW video_sessions AS\nSELECT 1 AS old;\n"
_LIST = """A row for each learner and spelling; not a ReplacingMergeTree, since the
-- number of rows tells a load that somebody was added.
"""


def _former(name: str, text: str) -> str:
    text = text.replace(_FSYNC, _WINDOW).replace(f"{_LEDGER};", f"{_LEDGER}\n{_WINDOW}")
    if name.startswith("0003"):
        text += _STATEMENTS
    if name.startswith("0004"):
        # In the place of all the former views, which were longer.
        text += _A_VIEW
    return text.replace("A row for each learner and spelling.\n", _LIST).replace(
        "ENGINE = ReplacingMergeTree(forgotten_at)\nORDER BY learner",
        "ENGINE = MergeTree\nORDER BY (learner, forgotten_at)",
    )


@contextmanager
def _former_files(upto: int) -> Iterator[dict[int, str]]:
    """Migrating applies the former files up to this one; gives their MD5."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        found = {}
        for path in sorted(migrate.SCHEMA.glob("*.sql"))[:upto]:
            text = _former(path.name, path.read_text()).encode()
            (Path(folder) / path.name).write_bytes(text)
            found[int(path.name[:4])] = md5(text, usedforsecurity=False).hexdigest()
        patch.setattr(migrate, "SCHEMA", Path(folder))
        patch.setattr(migrate, "VIEWS", Path(os.devnull))
        patch.setattr(migrate, "_drop_windows", lambda *_: None)
        yield found


def create(settings: Settings, upto: int) -> dict[int, str]:
    """Create a database with the former files up to this one; returns their MD5."""
    with _former_files(upto) as found:
        migrate.migrate(settings)
        return found


def creates(ask: Ask, database: str) -> list[tuple[str, list[str]]]:
    """What makes each table and view: the statement, and its settings in order."""
    found = []
    for (sql,) in ask(
        f"SELECT create_table_query FROM system.tables WHERE database = '{database}'"
        " AND name NOT IN ('schema_versions', 'video_events_old') ORDER BY name"
    ):
        rest, _, settings = sql.replace(database, "db").partition(" SETTINGS ")
        found.append((rest, sorted(settings.split(", "))))
    return found
