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
    """One step through what S3 has. A request continues behind its `position`: a key or, of an
    inventory, its file and row.

    `obj` is None if the step passes over something that is not covered; `ignored` says that it
    would be, if it were a bundle. The last step has a `stop` if the listing ended early.
    """

    position: str
    obj: S3Object | None = None
    ignored: bool = False
    stop: Stop | None = None


def select(request: BulkRequest, run: Run, progress: Progress) -> Iterator[Step]:
    """A step for each object that is found, in the order of positions, as far as time and S3 allow.

    `progress` counts the requests to S3. Raises S3Error if the listing cannot even begin, and
    S3Unordered at any time.
    """
    reached = request.after
    try:
        for position, obj in _found(request, run, progress):
            if run.out_of_time:
                yield Step(reached, stop=TIME_RAN_OUT)
                return
            reached = position
            yield _step(request, position, obj)
    except S3Unordered:
        # Keys that the store has not named yet may come before `reached`: there is no going on.
        raise
    except S3Late:
        yield Step(max(reached, progress.reached), stop=TIME_RAN_OUT)
    except S3Error as error:
        # Folders in which the listing found nothing are done too.
        reached = max(reached, progress.reached)
        if reached == request.after:
            raise
        yield Step(reached, stop=Stop(StopReason.LISTING_FAILED, str(error)))


def page(steps: Iterator[Step], objects: int) -> list[Step]:
    """The next steps, with up to so many objects; of those that pass over, one after the other, the
    last one.
    """
    taken: list[Step] = []
    for step in steps:
        if taken and taken[-1].obj is None and step.obj is None:
            taken.pop()
        taken.append(step)
        objects -= step.obj is not None
        if not objects:
            break
    return taken


def _step(request: BulkRequest, position: str, obj: S3Object) -> Step:
    # An inventory names the objects of other folders too.
    inside = obj.key.startswith(request.prefix)
    if inside and request.covers(obj):
        return Step(position, obj)
    return Step(position, ignored=inside and request.passes_over(obj))


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
