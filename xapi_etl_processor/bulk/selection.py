"""The objects that a bulk request covers, and where to continue if not all can be dealt with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from xapi_etl_processor.base.errors import Defect, S3BadInventory, S3Error, S3Late, S3Unordered
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.outcome import TIME_RAN_OUT, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import inventory as s3_inventory
from xapi_etl_processor.s3 import listing
from xapi_etl_processor.s3.listing import OPEN, Scope
from xapi_etl_processor.s3.objects import S3Object, holds_sections


class Covered:
    """The objects that a request covers, in the order of their positions, as far as time and S3
    allow.

    A position is the object's key; or, of an inventory, its file and row. With `by_month` the
    objects come month by month, and the month is the first part of the position.

    `reached` is the last position that was passed on or passed over. `positions` has, for each
    object that was passed on and has no outcome yet, by its key, the position before it and its
    own. `stop` says what ended the listing early. `ignored` counts the objects that would be
    covered if they were bundles. Iterating raises S3Error if the listing cannot even begin, and
    S3Unordered at any time.
    """

    def __init__(self, request: BulkRequest, run: Run, *, by_month: bool = False) -> None:
        self.reached = request.after
        self.positions: dict[str, tuple[str, str]] = {}
        self.stop: Stop | None = None
        self.ignored = 0
        self._request = request
        self._run = run
        self._by_month = by_month
        self._month = ""
        self._progress = listing.Progress()

    @property
    def list_calls(self) -> int:
        """How many requests the listing has taken until now."""
        return self._progress.calls

    def check_settled(self) -> None:
        """Raises Defect if an object that was passed on has no outcome."""
        if self.positions:
            missing = next(iter(self.positions))
            raise Defect(f"bulk: no outcome for {missing}: report this as a defect")

    def __iter__(self) -> Iterator[S3Object]:
        request, run = self._request, self._run
        try:
            for position, obj in self._found():
                if run.out_of_time:
                    self.stop = TIME_RAN_OUT
                    return
                if obj.key in self.positions:
                    continue  # an inventory may name an object twice
                # An inventory names the objects of other folders too.
                inside = obj.key.startswith(request.prefix)
                if inside and request.covers(obj):
                    self.positions[obj.key] = self.reached, position
                    yield obj
                elif inside and request.passes_over(obj):
                    self.ignored += 1
                self.reached = position
        except S3Unordered:
            # Keys that the store has not named yet may come before `reached`: there is no going on.
            raise
        except S3Late:
            self._reach()
            self.stop = TIME_RAN_OUT
        except S3Error as error:
            self._reach()
            if self.reached == request.after:
                raise
            self.stop = Stop(StopReason.LISTING_FAILED, str(error))

    def _reach(self) -> None:
        """Count the folders in which the listing found nothing as done."""
        self.reached = max(self.reached, self._position(self._progress.reached))

    def _position(self, key: str) -> str:
        return f"{self._month} {key}" if self._month else key

    def _found(self) -> Iterator[tuple[str, S3Object]]:
        """Objects with their positions, among them some that are not covered."""
        request, run = self._request, self._run
        stores, until = run.connections.s3, run.read_until
        if request.inventory:
            inventory = s3_inventory.read_manifest(stores, request.inventory, request.bucket, until)
            for position, obj in s3_inventory.objects(stores, inventory, request.after, until):
                self._check_dated(obj)
                yield position, obj
            return
        for month, scope in self._scopes():
            self._month, self._progress.reached = month, ""
            after = request.after
            if month:
                # If `after` is in an earlier month, nothing of this one is done.
                begun, _, key = after.partition(" ")
                after = key if begun == month else ""
            listed = listing.listing(stores, scope, after, until, self._progress)
            for obj in listed:
                if not month or obj.month == month:
                    yield self._position(obj.key), obj

    def _check_dated(self, obj: S3Object) -> None:
        """Raises S3BadInventory for an object if it cannot be told whether its day is wanted."""
        request = self._request
        if not {"start_date", "end_date"} & request.scope.keys():
            return
        if obj.written_ms is None:
            of_any_day = replace(request, first_day=None, last_day=None)
            if obj.key.startswith(request.prefix) and of_any_day.covers(obj):
                raise S3BadInventory(
                    f"the inventory does not say when {obj.uri} was modified, and its key has no"
                    " timestamp: have it list the last modified date, or ask without dates"
                )

    def _scopes(self) -> Iterator[tuple[str, Scope]]:
        """What to list, one after the other; by month, it begins with the month of `after`."""
        request = self._request
        scope = scope_of(request)
        if not self._by_month:
            yield "", scope
            return
        first, last = scope.days or OPEN
        found = listing.months(
            self._run.connections.s3, scope, self._run.read_until, self._progress
        )
        for month, folders in found.items():
            if month >= request.after[: len(month)]:
                days = max(first, f"{month}-01"), min(last, f"{month}-31")
                yield month, Scope(request.bucket, request.prefix, folders, days=days)


def scope_of(request: BulkRequest) -> Scope:
    """What to list for a request."""
    first, last = (request.scope.get(name) for name in ("start_date", "end_date"))
    sections = None
    if request.sections and holds_sections(request.prefix):
        sections = tuple(sorted(f"{request.prefix}{section}/" for section in request.sections))
    days = (first or OPEN[0], last or OPEN[1]) if first or last else None
    return Scope(request.bucket, request.prefix, sections, request.categories, days)
