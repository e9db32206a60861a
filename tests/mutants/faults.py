"""The faults to try, as a mutation tool made them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent

FIRST_TESTS = {
    "": "test_event_mode test_bulk_mode test_health test_delivery",
    "cli": "test_cli",
    "clickhouse": "test_clickhouse_client test_clickhouse_faults test_tls test_waits"
    " test_exactly_once test_altered_tables",
    "common": "test_event_mode test_batch test_bulk_mode test_exactly_once test_altered_tables"
    " test_content test_clickhouse_faults test_s3_faults",
    "config": "test_config",
    "deadlines": "test_deadlines test_clickhouse_client test_bulk_resuming test_waits",
    "lambda_function": "test_event_mode test_bulk_mode test_promised_payloads test_delivery"
    " test_logs test_privacy",
    "modes/bulk": "test_bulk_mode test_bulk_resuming test_bulk_token test_requested_sections",
    "modes/estimate": "test_estimate",
    "modes/event": "test_event_mode test_redelivery test_delivery test_backfill_failures",
    "modes/health": "test_health test_waits",
    "modes/redelivery": "test_redelivery test_backfill_failures",
    "modes/send": "test_backfill",
    "secrets": "test_clickhouse_client test_waits",
    "sources/objects": "test_objects",
    "sources/payloads": "test_payloads test_event_mode",
    "sources/messages": "test_messages",
    "sources/queue": "test_redelivery test_backfill",
    "sources/s3": "test_streaming test_s3_faults test_stores test_bulk_mode test_event_mode"
    " test_waits",
    "sources/stores": "test_stores test_s3_faults test_tls test_health",
    "storage/": "test_batch test_storing test_exactly_once test_event_mode test_voided_statements"
    " test_docs test_clickhouse_faults test_altered_tables test_content",
    "storage/inspection": "test_health test_replicas",
    "storage/migrations": "test_migration test_cli test_tls",
    "storage/replication": "test_migration test_replicas",
    "telemetry": "test_logs test_privacy",
    "xapi/": "test_statements test_leniency test_column_order test_event_ids",
    "xapi/lines": "test_lines",
}
"""Which test files are tried first with a fault, by the start of its module's name. If several
starts fit, the longest counts. The slow tests of these files run too, and after them all of
`make test-fast`."""


class Fault(NamedTuple):
    """A file with one mistake in it, and the tests that may find it."""

    file: str
    line: int
    about: str
    code: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.about}"

    def diff(self) -> str:
        """The lines that differ from the file without the mistake."""
        lines = difflib.unified_diff(
            (ROOT / self.file).read_text().splitlines(), self.code.splitlines(), lineterm="", n=0
        )
        return "\n".join(f"    {line}" for line in list(lines)[2:] if not line.startswith("@@"))


def generated(path: Path) -> Iterator[Fault]:
    """The faults that tests/mutants/generate.py wrote."""
    for text in path.read_text().splitlines():
        entry = json.loads(text)
        yield Fault(**entry, tests=_first_tests(entry["file"]))


def _first_tests(file: str) -> tuple[str, ...]:
    module = file.removeprefix("xapi_etl_processor/")
    start = max((name for name in FIRST_TESTS if module.startswith(name)), key=len)
    return tuple(f"tests/{name}.py" for name in FIRST_TESTS[start].split())
