"""How often a call to ClickHouse is tried, and how long the pauses between the attempts are."""

from __future__ import annotations

import random
import time
from collections import Counter

from xapi_etl_processor.base.deadlines import Deadline
from xapi_etl_processor.base.errors import (
    ClickHouseBusy,
    ClickHouseError,
    ClickHouseUnavailable,
    OutcomeUnknown,
)
from xapi_etl_processor.base.telemetry import logger

ATTEMPTS = 4
"""How often one query or insert is tried. Our limit."""

BUSY_SECONDS = 600
"""How long an insert waits for a busy server, over all its pauses. A few hundred small parts are
merged sooner (docs/scaling.md), and in Lambda the invocation often ends sooner. Our limit."""

LONGEST_PAUSE_SECONDS = 30
"""The longest pause between two attempts at a busy server. Our choice."""

CONNECT_SECONDS = 5
"""How long connecting, and a ping on an idle connection, may take. Our limit."""


class Attempts:
    """The attempts at one call; if `uncertain`, one may have done it. If patient, a busy server is
    waited for, up to BUSY_SECONDS.
    """

    def __init__(self, deadline: Deadline, *, patient: bool) -> None:
        self.uncertain = False
        self._deadline = deadline
        self._patient = patient
        self._waited = 0.0
        self._failures = Counter[bool]()  # by whether the server was busy

    def pause_after(self, failure: ClickHouseError, cause: Exception) -> None:
        """Wait until the next attempt; raises the failure if there must be none."""
        self.uncertain = self.uncertain or isinstance(failure, OutcomeUnknown)
        busy = self._patient and isinstance(failure, ClickHouseBusy)
        self._failures[busy] += 1
        longest = min(2 ** (self._failures[busy] - 1), LONGEST_PAUSE_SECONDS)
        pause = random.uniform(0.5, 1) * longest  # noqa: S311  # jitter
        used_up = self._waited >= BUSY_SECONDS if busy else self._failures[busy] >= ATTEMPTS
        too_late = pause + CONNECT_SECONDS > self._deadline.seconds_left
        if used_up or too_late or not isinstance(failure, ClickHouseUnavailable):
            raise failure from cause
        logger.warning("trying again", extra={"error": str(failure), "seconds": pause})
        time.sleep(pause)
        self._waited += pause
