"""Selects the objects that a bulk request covers, and says where to continue after each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from xapi_etl_processor.base.errors import S3BadInventory, S3Error, S3Late, S3Unordered
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.outcome import TIME_RAN_OUT, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import inventory, listing
from xapi_etl_processor.s3.listing import OPEN, Progress, Scope
from xapi_etl_processor.s3.objects import S3Object, holds_sections


class Step(NamedTuple):
    """An object that a request covers, and its `position`, behind which a request can continue: a
    key or, of an inventory, its file and row. What is up to `before` need not be looked at again.

    The last step has no object: up to its position, all others are passed over. It has a `stop` if
    the listing ended early.
    """

    position: str
    obj: S3Object | None = None
    before: str = ""
    stop: Stop | None = None


def select(request: BulkRequest, run: Run, progress: Progress) -> Iterator[Step]:
    """The steps of a request, in the order of positions, as far as time and S3 allow.

    `progress` counts the requests to S3, and what would be covered if it were a bundle. Raises
    S3Error if the listing cannot even begin, and S3Unordered at any time.
    """
    reached, stop = request.after, None
    try:
        for position, obj in _found(request, run, progress):
            if run.out_of_time:
                stop = TIME_RAN_OUT
                break
            before, reached = reached, position
            # An inventory names the objects of other folders too.
            if obj.key.startswith(request.prefix):
                if request.covers(obj):
                    yield Step(position, obj, before)
                else:
                    progress.ignored += request.passes_over(obj)
    except S3Unordered:
        # Keys that the store has not named yet may come before `reached`: there is no going on.
        raise
    except S3Error as error:
        # Folders in which the listing found nothing are done too.
        reached = max(reached, progress.reached)
        if isinstance(error, S3Late):
            stop = TIME_RAN_OUT
        elif reached == request.after:
            raise
        else:
            stop = Stop(StopReason.LISTING_FAILED, str(error))
    yield Step(reached, stop=stop)


def _found(request: BulkRequest, run: Run, progress: Progress) -> Iterator[tuple[str, S3Object]]:
    """Objects with their positions, among them some that are not covered."""
    stores, until = run.connections.s3, run.read_until
    if request.inventory:
        listed = inventory.read_manifest(stores, request.inventory, request.bucket, until)
        for position, obj in inventory.objects(stores, listed, request.after, until):
            _check_dated(request, obj)
            yield position, obj
    else:
        found = listing.listing(stores, scope_of(request), request.after, until, progress)
        yield from ((obj.key, obj) for obj in found)


def _check_dated(request: BulkRequest, obj: S3Object) -> None:
    """Raises S3BadInventory for an object if it cannot be told whether its day is wanted."""
    if not {"start_date", "end_date"} & request.scope.keys():
        return
    if obj.written_ms is None:
        of_any_day = replace(request, first_day=None, last_day=None)
        if obj.key.startswith(request.prefix) and of_any_day.covers(obj):
            raise S3BadInventory(
                f"the inventory does not say when {obj.uri} was modified, and its key has no"
                " timestamp: have it list the last modified date, or ask without dates"
            )


def scope_of(request: BulkRequest) -> Scope:
    """What to list for a request."""
    first, last = (request.scope.get(name) for name in ("start_date", "end_date"))
    sections = None
    if request.sections and holds_sections(request.prefix):
        sections = tuple(sorted(f"{request.prefix}{section}/" for section in request.sections))
    days = (first or OPEN[0], last or OPEN[1]) if first or last else None
    return Scope(request.bucket, request.prefix, sections, request.categories, days)
