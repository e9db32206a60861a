"""What an independent reader asks after a fault: which statements are there, and how often."""

from __future__ import annotations

from tests.samples import event_id

IDS = "SELECT event_id FROM video_events FINAL ORDER BY event_id"
ROWS = "SELECT count() FROM video_events"
"""Of every row stored, so that what only FINAL hides is seen too."""
FORGET = "TRUNCATE TABLE processed_files"


def ids(numbers: range) -> list[list[str]]:
    """What IDS answers where the video statements of these numbers are there, once each."""
    return [[event_id(n)] for n in numbers]
