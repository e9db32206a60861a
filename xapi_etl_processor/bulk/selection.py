"""Selects the objects that a bulk request covers, and says where to continue after each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from xapi_etl_processor.base.errors import S3Error, S3Late, S3Unordered
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.outcome import TIME_RAN_OUT, Stop, StopReason
from xapi_etl_processor.run import Run
from xapi_etl_processor.s3 import listing
from xapi_etl_processor.s3.listing import Progress, Scope
from xapi_etl_processor.s3.objects import S3Object, holds_sections


class Step(NamedTuple):
    """An object that a request covers, and its `key`, behind which a request can continue. What is
    up to the key `before` need not be looked at again.

    The last step has no object: up to its key, all others are passed over. It has a `stop` if the
    listing ended early.
    """

    key: str
    obj: S3Object | None = None
    before: str = ""
    stop: Stop | None = None


def select(request: BulkRequest, run: Run, progress: Progress) -> Iterator[Step]:
    """The steps of a request, in the order of keys, as far as time and S3 allow.

    `progress` counts the requests to S3, and what would be covered if it were a bundle. Raises
    S3Error if the listing cannot even begin, and S3Unordered at any time.
    """
    reached, stop = request.after, None
    stores, until = run.connections.s3, run.read_until
    try:
        for obj in listing.listing(stores, scope_of(request), request.after, until, progress):
            if run.out_of_time:
                stop = TIME_RAN_OUT
                break
            before, reached = reached, obj.key
            if request.covers(obj):
                yield Step(obj.key, obj, before)
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


def scope_of(request: BulkRequest) -> Scope:
    """What to list for a request."""
    sections = None
    if request.sections and holds_sections(request.prefix):
        sections = tuple(sorted(f"{request.prefix}{section}/" for section in request.sections))
    return Scope(request.bucket, request.prefix, sections, request.categories, request.days)
