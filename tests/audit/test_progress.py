"""How much of a request the ledger has: what its query counts is what the request covers."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product

import pytest

from tests.s3.test_listing import PERIODS, SCOPES, UNUSUAL, USUAL, request_for
from tests.support.dirty import Dirty
from xapi_etl_processor.audit.progress import loaded
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.run import connections
from xapi_etl_processor.s3.objects import S3Object, day_of
from xapi_etl_processor.storage.ledger import record_files
from xapi_etl_processor.xapi.parse import Counts


@pytest.mark.slow
def test_the_ledger_counts_what_a_request_covers(settings: Settings) -> None:
    settings = replace(settings, prefix="")
    clickhouse = connections(settings).clickhouse
    # To the query, a day that is in no calendar is one.
    keys = [
        *USUAL,
        *(k for k in UNUSUAL if k.endswith((".jsonl", ".jsonl.gz")) and "-13-" not in k),
    ]
    objects = [S3Object(settings.bucket, key, "etag") for key in keys]
    counts = Counts(lines=3, video=2, other=1)
    record_files(clickhouse, [(obj, counts) for obj in objects], "event", "run", FOREVER)
    for scope, period in list(product(SCOPES, PERIODS))[::5]:
        request = request_for(settings, **scope, **period)
        covered = [
            obj
            for obj in objects
            if obj.key.startswith(request.prefix)
            and request.covers(obj)
            # The ledger does not know when an object was modified.
            and (not period or day_of(obj.key) is not None)
        ]
        found = loaded(clickhouse, request, 0.0)
        assert found == (len(covered), 3 * len(covered)), (scope, period)


def test_what_was_loaded_twice_counts_once(dirty: Dirty) -> None:
    """Five objects: 22 statements of ALL, 3, both versions of VERSIONS, and one of each other."""
    clickhouse = ClickHouse(dirty.settings)
    request = request_for(dirty.settings, section_id=2001)
    assert loaded(clickhouse, request, 0.0) == (5, 29)
    again = request_for(dirty.settings, section_id=1, force_reprocess=True)
    # Of two, OLD was loaded a hundred days ago.
    assert loaded(clickhouse, again, time.time() - 86_400) == (1, 1)
    clickhouse.disconnect()
