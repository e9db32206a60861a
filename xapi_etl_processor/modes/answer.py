"""Counters and bodies of answers; logs and metrics are made from them too."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from xapi_etl_processor.outcome import Outcome, Status, Stop
from xapi_etl_processor.run import Run
from xapi_etl_processor.xapi.parse import Counts

SHOWN_FAILURES = 20
"""Failures that an answer names; the rest are only counted. Lambda limits an answer to 6 MB."""

SHOWN_CHARACTERS = 2000
"""Characters of an error in an answer. Our limit."""


@dataclass
class Summary:
    """Totals over all objects. Its timer starts when it is created."""

    counts: Counts = field(default_factory=Counts)
    timestamps_replaced: int = 0
    rows_removed: int = 0
    found: int = 0
    ignored: int = 0
    failed: int = 0
    by_status: dict[Status, int] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one object, and its lines if it was processed."""
        if outcome.status is Status.IGNORED:
            self.ignored += 1
            return
        self.found += 1
        self.by_status[outcome.status] = self.by_status.get(outcome.status, 0) + 1
        self.rows_removed += outcome.rows_removed
        if outcome.status is Status.PROCESSED:
            self.counts.add(outcome.counts)
            self.timestamps_replaced += outcome.timestamps_replaced
        if outcome.failed:
            self.failed += 1
            self.fail(outcome.obj.key, outcome.error)

    def fail(self, key: str, error: str) -> None:
        """Name a failure, as `add_failure` does."""
        add_failure(self.failures, key, error)

    def body(self, section_id: Any, run: Run) -> dict[str, Any]:
        """The part of an answer's body that event and bulk mode share."""
        body = {
            "success": not self.failures,
            "processing_mode": run.mode,
            "section_id": section_id,
            "events_processed": self.counts.video + self.counts.other,
            "video_events_processed": self.counts.video,
            "other_events": self.counts.other,
            "rejected_lines": self.counts.rejected,
            "blank_lines": self.counts.blank,
            "forgotten_events": self.counts.forgotten,
            "timestamps_replaced": self.timestamps_replaced,
            "files_found": self.found,
            "files_processed": self.by_status.get(Status.PROCESSED, 0),
            "files_skipped": self.by_status.get(Status.SKIPPED, 0),
            "files_ignored": self.ignored,
            "files_failed": self.failed,
            "failures": self.failures,
            "duration_ms": round((time.monotonic() - self.started) * 1000),
            "dry_run": run.wanted.dry_run,
        }
        if run.wanted.replace:
            body["rows_removed"] = self.rows_removed
        return body


def add_failure(failures: list[dict[str, str]], key: str, error: object) -> None:
    """Name a failure in an answer, unless SHOWN_FAILURES are named already."""
    if len(failures) < SHOWN_FAILURES:
        failures.append({"key": key, "error": str(error)[:SHOWN_CHARACTERS]})


def ending(stop: Stop | None, token: str) -> dict[str, Any]:
    """What the answer to a request that can be continued says of its end."""
    if not stop:
        return {"complete": True, "stopped": None, "stop_reason": None, "continuation_token": None}
    return {
        "complete": False,
        "stopped": stop.text,
        "stop_reason": stop.reason,
        "continuation_token": token,
    }
