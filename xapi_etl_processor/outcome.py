"""What became of one object, and why work stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from xapi_etl_processor.base.errors import ClickHouseBusy
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.xapi.parse import Counts


class Status(StrEnum):
    """What became of an object."""

    PROCESSED = "processed"
    FOUND = "found"  # in a dry run: it would be processed
    SENT = "sent"  # to the backfill queue
    SKIPPED = "skipped"  # the ledger knows it
    IGNORED = "ignored"  # it is not a bundle
    FAILED = "failed"  # it cannot be read
    UNSTORED = "unstored"  # ClickHouse did not take it
    WAITING = "waiting"  # work stopped before it was begun or finished


class StopReason(StrEnum):
    """Why work stopped before all objects were processed, as answers say it."""

    OUT_OF_TIME = "out_of_time"
    BUSY = "busy"  # ClickHouse had too much to do
    LISTING_FAILED = "listing_failed"
    LEDGER_FAILED = "ledger_failed"  # it could not be read
    INSERT_FAILED = "insert_failed"
    SENDING_FAILED = "sending_failed"  # to the backfill queue


class Stop(NamedTuple):
    """A reason, and what a person should know about it."""

    reason: StopReason
    text: str


def stop_after(error: Exception, otherwise: StopReason) -> Stop:
    """The stop that an error of ClickHouse makes: BUSY, if the server only has too much to do."""
    return Stop(StopReason.BUSY if isinstance(error, ClickHouseBusy) else otherwise, str(error))


TIME_RAN_OUT = Stop(StopReason.OUT_OF_TIME, "time ran out")


@dataclass
class Outcome:
    """What became of one object and of its lines.

    `timestamps_replaced` counts the video statements whose timestamp is not their own. `stop` says
    why an object is WAITING or UNSTORED, `bad_request` that the failure lies in the request, and
    `poison` that it lies in the object.
    """

    obj: S3Object
    status: Status = Status.PROCESSED
    error: str = ""
    counts: Counts = field(default_factory=Counts)
    timestamps_replaced: int = 0
    rows_removed: int = 0
    stop: Stop | None = None
    bad_request: bool = False
    poison: bool = False

    @property
    def failed(self) -> bool:
        """Whether it must be delivered again."""
        return self.status in (Status.FAILED, Status.UNSTORED, Status.WAITING)

    def mark_failed(self, error: object, *, poison: bool = True) -> None:
        """Note that the object itself cannot be read or processed."""
        self.status, self.error, self.poison = Status.FAILED, str(error), poison

    def mark_stopped(self, status: Status, stop: Stop) -> None:
        """Note that work stopped before the object was finished (WAITING) or stored (UNSTORED)."""
        self.status, self.error, self.stop = status, stop.text, stop

    def mark_unstored(self, stop: Stop) -> None:
        """Note that ClickHouse did not take the rows: UNSTORED, or WAITING if it was only busy."""
        busy = stop.reason is StopReason.BUSY
        self.mark_stopped(Status.WAITING if busy else Status.UNSTORED, stop)


def stopped(obj: S3Object, status: Status, stop: Stop) -> Outcome:
    """The outcome of an object that was not begun."""
    return Outcome(obj, status, stop.text, stop=stop)
