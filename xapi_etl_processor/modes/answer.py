"""Outcomes to the counters that answers, logs and metrics share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from xapi_etl_processor.common import Outcome
from xapi_etl_processor.xapi.statements import Counts

SHOWN_FAILURES = 20
"""Failures that an answer names; the rest are only counted, since Lambda's answers end at 6 MB."""

SHOWN_CHARACTERS = 2000
"""Characters of an error in an answer. Ours."""


@dataclass
class Summary:
    """The sum of what became of objects."""

    counts: Counts = field(default_factory=Counts)
    found: int = 0
    failed: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one object; its lines count only if they were processed."""
        self.found += 1
        self.by_status[outcome.status] = self.by_status.get(outcome.status, 0) + 1
        if outcome.status == "processed":
            self.counts.add(outcome.counts)
        if outcome.failed:
            self.failed += 1
            self.fail(outcome.obj.key, outcome.error)

    def fail(self, key: str, error: str) -> None:
        """Name a failure, if not too many are named already."""
        if len(self.failures) < SHOWN_FAILURES:
            self.failures.append({"key": key, "error": error[:SHOWN_CHARACTERS]})

    def body(
        self, mode: str, section_id: int | None, dry_run: bool, started: float
    ) -> dict[str, Any]:
        """The body of an answer; started is a time.monotonic()."""
        return {
            "success": not self.failures,
            "processing_mode": mode,
            "section_id": section_id,
            "events_processed": self.counts.video + self.counts.other,
            "video_events_processed": self.counts.video,
            "other_events": self.counts.other,
            "rejected_lines": self.counts.rejected,
            "blank_lines": self.counts.blank,
            "files_found": self.found,
            "files_processed": self.by_status.get("processed", 0),
            "files_skipped": sum(self.by_status.get(s, 0) for s in ("skipped", "ignored")),
            "files_failed": self.failed,
            "failures": self.failures,
            "duration_ms": round((time.monotonic() - started) * 1000),
            "dry_run": dry_run,
        }
