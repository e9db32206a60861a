"""What is stored about a learner, for a request for access; and which objects in S3 have more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from xapi_etl_processor.base.errors import S3Error, naming
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.privacy.learner import (
    Learner,
    check_key,
    conditions,
    rejected_lines,
    tables_with_learners,
)
from xapi_etl_processor.s3 import fetch
from xapi_etl_processor.s3.bundle import unpacked
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage.tables import REJECTED
from xapi_etl_processor.xapi.chunk import Chunk, Source
from xapi_etl_processor.xapi.decode import Rejected, decode
from xapi_etl_processor.xapi.derived import all_ids
from xapi_etl_processor.xapi.learners import comparable, texts_in
from xapi_etl_processor.xapi.lines import split_lines
from xapi_etl_processor.xapi.transpose import to_columns


def held(learners: Sequence[Learner], clickhouse: ClickHouse) -> dict[str, Any]:
    """All that is stored about learners, by table and column. Raises as `check_key` does."""
    known = check_key(clickhouse)
    stored: dict[str, list[dict[str, Any]]] = {}
    for table in tables_with_learners(clickhouse):
        columns = [
            name
            for (name,) in clickhouse.query(
                "SELECT name FROM system.columns WHERE database = %(database)s"
                " AND table = %(table)s ORDER BY position",
                {"database": clickhouse.database, "table": table},
            )
        ]
        stored[table] = [
            dict(zip(columns, row, strict=True))
            for where, params in conditions(learners, clickhouse)
            for row in clickhouse.query(
                f"SELECT {', '.join(columns)} FROM {clickhouse.database}.{table} FINAL"
                f" WHERE {where} ORDER BY timestamp, event_id",
                params,
            )
        ]
    stored[REJECTED] = [line._asdict() for line in rejected_lines(learners, clickhouse)]
    return {
        "learners": [learner._asdict() for learner in learners],
        "forgotten": bool(known.forgotten((of.user_id, of.home_page or "") for of in learners)),
        "stored": stored,
    }


def objects_with(
    learners: Sequence[Learner], objects: Iterator[S3Object], client: Any
) -> Iterator[tuple[S3Object, bool, str]]:
    """Read every object: whether it holds a statement of one of the learners, or a line that names
    one, and why, if it cannot be read.
    """
    names = [learner.user_id.encode().lower() for learner in learners]
    with closing(fetch.bodies(client, objects)) as bodies:
        for obj, body in bodies:
            try:
                holds = any(
                    _is_of(line, learners)
                    for lines in split_lines(unpacked(obj.uri, body))
                    for line in lines
                    # A line with a backslash may spell a name in another way.
                    if b"\\" in line or any(name in line.lower() for name in names)
                )
            except S3Error as error:
                yield obj, False, naming(obj.uri, error)
            else:
                yield obj, holds, ""


def _is_of(line: bytes, learners: Sequence[Learner]) -> bool:
    try:
        chunk = Chunk(Source("", "", "", None, 0), [decode(line.strip())], [line], [1])
    except Rejected:
        names = {comparable(learner.user_id) for learner in learners}
        return not names.isdisjoint(map(comparable, texts_in(line)))
    columns = to_columns(chunk)
    [user] = columns.get("user_id", ("",))
    [home_page] = columns.get("home_page", ("",))
    people = [(user, home_page), *all_ids(chunk.statements[0].actor)]
    return any(
        comparable(user) == comparable(learner.user_id) and learner.home_page in (None, page)
        for learner in learners
        for user, page in people
    )
