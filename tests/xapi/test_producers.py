"""Statements in the shape of many players and platforms, and the whole row that each becomes.

producers.json was made by hand: names, ids and videos are invented. A row has the columns that are
not absent; null stands for a statement that is not about a video.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.rows import ABSENT, NOON, encoded, rows_of
from xapi_etl_processor.xapi.chunk import Source
from xapi_etl_processor.xapi.parse import parse

PRODUCERS = json.loads((Path(__file__).parent / "producers.json").read_text())
SOURCE = Source("s3://bucket/section/7/video/x.jsonl", "etag", "7", NOON + 1, 0)


@pytest.mark.parametrize("producer", PRODUCERS)
def test_a_producers_statement_becomes_its_row_if_it_is_about_a_video(producer: str) -> None:
    statement, row = PRODUCERS[producer]["statement"], PRODUCERS[producer]["row"]
    found = parse([encoded(statement)], 1, SOURCE)
    where = {"source_file": SOURCE.file, "source_etag": SOURCE.etag, "source_line": 1}
    assert rows_of(found) == ([ABSENT | where | row] if row else [])
    assert (found.counts.video, found.counts.other) == (int(bool(row)), int(not row))
