"""The sums of an answer: what became of the objects and of their lines."""

from __future__ import annotations

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.modes.answer import Summary
from xapi_etl_processor.outcome import Outcome, Status
from xapi_etl_processor.run import Run, Wanted
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.parse import Counts


def test_every_number_is_a_sum_over_the_objects_and_only_loaded_lines_count() -> None:
    variables = {"CLICKHOUSE_HOST": "127.0.0.1", "S3_XAPI_BUCKET_NAME": "bundles"}
    run = Run(Settings.from_env(variables), None, "event", Wanted(replace=True))  # type: ignore[arg-type]
    lines = Counts(lines=21, video=6, other=5, blank=4, rejected=3, forgotten=3)
    summary = Summary()
    for number, status in enumerate(Status):
        for _ in range(2):
            obj = S3Object("bundles", str(number))
            outcome = Outcome(obj, status, counts=lines, timestamps_replaced=7, rows_removed=8)
            summary.add(outcome)
    body = summary.body(2001, run)
    found = 2 * (len(Status) - 1)  # all but those that are ignored
    sums = {
        "events_processed": 22,
        "video_events_processed": 12,
        "other_events": 10,
        "rejected_lines": 6,
        "blank_lines": 8,
        "forgotten_events": 6,
        "timestamps_replaced": 14,
        "files_found": found,
        "files_processed": 2,
        "files_skipped": 2,
        "files_ignored": 2,
        "files_failed": 6,
        "rows_removed": 8 * found,
    }
    assert {name: body[name] for name in sums} == sums
    assert (body["success"], body["section_id"], len(body["failures"])) == (False, 2001, 6)
