"""The faults to try: those that people wrote down, and those that a mutation tool made."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
"""Which test files are tried first with a fault that names none, by the start of its module's name.
If several starts fit, the longest counts. The slow tests of these files run too, and after them all
of `make test-fast`."""


class Fault(NamedTuple):
    """A file with one mistake in it, and the tests that may find it."""

    file: str
    line: int
    about: str
    code: str
    tests: tuple[str, ...]
    others: bool
    """Whether other tests may catch it too."""
    by_hand: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.about}"

    def diff(self) -> str:
        """The lines that differ from the file without the mistake."""
        lines = difflib.unified_diff(
            (ROOT / self.file).read_text().splitlines(), self.code.splitlines(), lineterm="", n=0
        )
        return "\n".join(f"    {line}" for line in list(lines)[2:] if not line.startswith("@@"))


class Stale(Exception):
    """A fault that was written for lines that are no longer there."""


def by_hand(only: str) -> Iterator[Fault | Stale]:
    """The faults of tests/mutants/by_hand/*.toml for files whose name contains `only`."""
    for path in sorted((Path(__file__).parent / "by_hand").glob("*.toml")):
        content = tomllib.loads(path.read_text())
        for entry in content.pop("fault"):
            try:
                if only in (content | entry)["file"]:
                    yield _written(content | entry)
            except Stale as error:
                yield error


def _written(entry: dict[str, Any]) -> Fault:
    file, after, old = entry["file"], entry.get("after", ""), entry["old"]
    code = (ROOT / file).read_text()
    start = code.find(after)
    at = code.find(old, start)
    line = code.count("\n", 0, at) + 1
    about = entry.get("about") or old.strip().partition("\n")[0]
    if start < 0 or at < 0:
        raise Stale(f"{file} {about}: its text is not there")
    if not after and code.count(old) > 1:
        raise Stale(f"{file} {about}: its text is there twice: say `after` which one")
    code = code[:at] + entry["new"] + code[at + len(old) :]
    tests = tuple(entry.get("tests") or _first_tests(file))
    return Fault(file, line, about, code, tests, "tests" not in entry, True)


def generated(path: Path) -> Iterator[Fault]:
    """The faults that tests/mutants/generate.py wrote."""
    for text in path.read_text().splitlines():
        entry = json.loads(text)
        yield Fault(**entry, tests=_first_tests(entry["file"]), others=True, by_hand=False)


def _first_tests(file: str) -> tuple[str, ...]:
    module = file.removeprefix("xapi_etl_processor/")
    start = max((name for name in FIRST_TESTS if module.startswith(name)), key=len)
    return tuple(f"tests/{name}.py" for name in FIRST_TESTS[start].split())
