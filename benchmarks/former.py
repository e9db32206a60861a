"""Views of another version, in a database of their own over the same tables."""

import re
from pathlib import Path

from chdb.state.sqlitelike import Connection
from clickhouse_migrations.migrator import Migrator
from jinja2 import Template

DATABASE = "former"


def make_former(engine: Connection, file: Path, tables: str) -> str:
    """Make the views of a former `views.sql` over the tables of a database; their database."""
    text = re.sub(
        r"\b(video_events|voided_statements)\b",
        rf"{tables}.\1",
        Template(file.read_text()).render(),
    )
    engine.query(f"CREATE DATABASE {DATABASE}")
    engine.query(f"USE {DATABASE}")
    for statement in Migrator.script_to_statements(text, multi_statement=True):
        engine.query(statement)
    engine.query(f"USE {tables}")
    return DATABASE
