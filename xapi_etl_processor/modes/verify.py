"""Verification: is everything that a request covers stored? And, if asked, loading what is not."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from xapi_etl_processor.base.errors import ClickHouseError, DeadlinePassed, NothingDone, S3Late
from xapi_etl_processor.base.telemetry import OBJECTS_MISSING, counted
from xapi_etl_processor.bulk import selection
from xapi_etl_processor.bulk.compare import WRONG, Check, check, ledger_keys
from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.common import load
from xapi_etl_processor.modes.answer import add_failure, ending
from xapi_etl_processor.outcome import TIME_RAN_OUT, Outcome, Stop, StopReason
from xapi_etl_processor.run import Run, Wanted
from xapi_etl_processor.s3.listing import Progress
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.checks import check_whole_results
from xapi_etl_processor.storage.sections import instead

PAGE_OBJECTS = 5_000
"""Objects that are compared by one look at the ledger and one at the table, which is not sorted by
object. Our choice."""

SHOWN_FINDINGS = 20
"""Objects that an answer names for each kind of finding. Our limit."""


@dataclass
class _Found:
    """What was found so far. Its timer starts when it is created."""

    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    earlier: notes.Verified = notes.NOTHING_VERIFIED
    lines_missing: int = 0
    repaired: int = 0
    gone: int = 0
    gone_keys: list[str] = field(default_factory=list)
    rows_removed: int = 0
    stop: Stop | None = None
    started: float = field(default_factory=time.monotonic)

    def add(self, one: Check) -> None:
        self.kinds[one.kind] += 1
        self.lines_missing += one.lines_missing
        if one.kind == "unreadable":
            self.fail(one.obj.key, one.why)
        elif one.kind not in ("right", "dropped") and self.kinds[one.kind] <= SHOWN_FINDINGS:
            finding = {"key": one.obj.key, "finding": one.kind, "why": one.why}
            self.findings.append({**finding, "lines": list(one.lines)} if one.lines else finding)

    def fail(self, key: str, error: str) -> None:
        add_failure(self.failures, key, error)


def run_verify(
    request: BulkRequest, run: Run, on_object: Callable[[S3Object], None] = lambda _: None
) -> dict[str, Any]:
    """Compare what the request covers with what is stored; returns the answer's body.

    With `repair`, wrong objects are loaded and compared again. With `continues` it goes on where
    the last such request ended early, and `objects_missing` counts those of both. A request that
    covers no object fails, unless `allow_empty` is set: a typo would pass every night. Raises
    S3Error if the bucket cannot be listed, and NothingDone if no object could be compared.
    """
    clickhouse = run.connections.clickhouse
    check_whole_results(clickhouse)
    if not request.continues:
        body, _ = _compared(request, run, _Found(), on_object)
        return body
    found = _Found(earlier=notes.verified(clickhouse, request.identity, run.deadline))
    earlier = found.earlier
    if earlier.failed:
        objects = counted(earlier.failed, "object")
        text = f"{objects} could not be compared before: verify again from the start"
        found.fail(request.prefix, text)
    body, after = _compared(replace(request, after=earlier.after), run, found, on_object)
    body |= {"continue": True, "continued_after": earlier.after}
    failed = earlier.failed + found.kinds["unreadable"]
    reached = notes.Verified(after, body[OBJECTS_MISSING], failed)
    try:
        notes.note_verified(
            clickhouse,
            request.identity,
            notes.NOTHING_VERIFIED if body["complete"] else reached,
            run.deadline,
        )
    except (ClickHouseError, DeadlinePassed) as error:
        # What was found must be said all the same; the next one compares this part again.
        body["failures"].append({"key": after, "error": f"the position was not noted: {error}"})
        body["success"] = False
    return body


def _compared(
    request: BulkRequest, run: Run, found: _Found, on_object: Callable[[S3Object], None]
) -> tuple[dict[str, Any], str]:
    listed = Progress()
    steps = selection.select(request, run, listed)
    after = request.after
    while not found.stop and (page := list(islice(steps, PAGE_OBJECTS))):
        objects = [step.obj for step in page if step.obj]
        checks = _checked(objects, request, run, found, on_object)
        if request.repair:
            checks = _repaired(checks, request, run, found)
        for one in checks:
            found.add(one)
        before = after
        if not found.stop:
            after, found.stop = page[-1].key, page[-1].stop
        elif checks:
            after = objects[len(checks) - 1].key
        if after != before:
            _count_gone(objects[: len(checks)], (before, after), request, run, found)
    if not found.stop:
        _count_gone([], (after, ""), request, run, found)
    if found.stop and after == request.after:
        raise NothingDone(f"verify: no object could be compared: {found.stop.text}")
    if not (found.kinds or found.stop or request.after or request.allow_empty):
        found.fail(request.prefix, _nothing(request, run))
    return _body(request, run, found, after, listed.calls), after


def _nothing(request: BulkRequest, run: Run) -> str:
    there = instead(run.connections.clickhouse, request.sections, run.deadline)
    return (
        f"s3://{request.bucket}/{request.prefix} has no bundle that was asked for: {there};"
        " if none is right, ask with allow_empty"
    )


def _checked(
    page: Sequence[S3Object],
    request: BulkRequest,
    run: Run,
    found: _Found,
    on_object: Callable[[S3Object], None],
) -> list[Check]:
    """Comparisons of the page's objects from its first on; fewer than all if work must stop."""
    checks: list[Check] = []
    ages = request.min_age_minutes
    try:
        for one in check(page, run, content=request.content, min_age_minutes=ages):
            checks.append(one)
            on_object(one.obj)
            if run.out_of_time:
                raise DeadlinePassed
    except (DeadlinePassed, S3Late):
        found.stop = TIME_RAN_OUT
    except ClickHouseError as error:
        found.stop = Stop(StopReason.LEDGER_FAILED, str(error))
        found.fail(page[len(checks)].key, str(error))
    return checks


def _repaired(checks: list[Check], request: BulkRequest, run: Run, found: _Found) -> list[Check]:
    """The comparisons, with those of wrong objects made again after loading them."""
    positions = [at for at, one in enumerate(checks) if one.kind in WRONG]
    if not positions:
        return checks
    loading = replace(run, wanted=Wanted(force=True, replace=request.wanted.replace))
    outcomes: list[Outcome] = []
    with closing(load([checks[at].obj for at in positions], loading)) as loaded:
        outcomes.extend(loaded)
    for outcome in outcomes:
        found.rows_removed += outcome.rows_removed
        if outcome.failed:
            found.fail(outcome.obj.key, outcome.error)
    done = [(at, o.obj) for at, o in zip(positions, outcomes, strict=False) if not o.failed]
    ignore = _Found()
    again = _checked([obj for _, obj in done], request, run, ignore, lambda _: None)
    found.stop = found.stop or ignore.stop
    for (at, _), one in zip(done, again, strict=False):
        checks[at] = one
        found.repaired += one.kind not in WRONG
    return checks


def _count_gone(
    page: Sequence[S3Object], keys: tuple[str, str], request: BulkRequest, run: Run, found: _Found
) -> None:
    """Count what the ledger knows between two keys ('' for the end) and S3 no longer has."""
    there = {obj.key for obj in page}
    try:
        for key in ledger_keys(
            run.connections.clickhouse, request.bucket, request.prefix, keys, run.deadline
        ):
            if key not in there and request.covers(S3Object(request.bucket, key)):
                found.gone += 1
                if len(found.gone_keys) < SHOWN_FINDINGS:
                    found.gone_keys.append(key)
    except ClickHouseError as error:
        found.stop = found.stop or Stop(StopReason.LEDGER_FAILED, str(error))
        found.fail(request.prefix, str(error))


def _body(
    request: BulkRequest, run: Run, found: _Found, after: str, list_calls: int
) -> dict[str, Any]:
    kinds = found.kinds
    wrong = found.earlier.missing + sum(kinds[kind] for kind in WRONG)
    if found.stop and found.stop.reason is StopReason.LISTING_FAILED:
        found.fail(after, found.stop.text)
    body: dict[str, Any] = {
        "success": not wrong and not found.failures,
        "processing_mode": run.mode,
        "verify": True,
        "content": request.content,
        "repair": request.repair,
        "section_id": request.section_id,
        "s3_prefix": request.prefix,
        "objects_checked": sum(kinds.values()),
        OBJECTS_MISSING: wrong,
        **{kind: kinds[kind] for kind in (*WRONG, "unproven", "dropped", "recent", "unreadable")},
        "gone": found.gone,
        "lines_missing": found.lines_missing,
        "repaired": found.repaired,
        "findings": found.findings,
        "gone_keys": found.gone_keys,
        "failures": found.failures,
        "duration_ms": round((time.monotonic() - found.started) * 1000),
        "list_calls": list_calls,
        **ending(found.stop, request.token_after(after)),
    }
    if request.wanted.replace:
        body["rows_removed"] = found.rows_removed
    return body
