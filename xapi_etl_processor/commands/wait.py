"""Waits until the function has loaded what was sent to the backfill queue, and verifies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic, sleep, time
from typing import Any

from xapi_etl_processor.audit.progress import Loaded, loaded
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.errors import ClickHouseError, RemoteFailed
from xapi_etl_processor.bulk.request import FUNCTION, MAX_AGE_MINUTES, BulkRequest
from xapi_etl_processor.commands.output import say
from xapi_etl_processor.commands.progress_bars import bar
from xapi_etl_processor.commands.resume import Progress
from xapi_etl_processor.modes.verify import run_verify
from xapi_etl_processor.queues import sqs
from xapi_etl_processor.run import Run, connections

LOOK_SECONDS = 5
"""How often queue and ledger are looked at. Our choice."""

EMPTY_SECONDS = 60
"""How long the queue must stay empty if the ledger does not have all objects. SQS's counts are
approximate, and right about a minute after the last message was sent (GetQueueAttributes)."""

TOLD_SECONDS = 60
"""How often the progress is printed where there is no terminal."""


@dataclass(frozen=True)
class Look:
    """What was seen at one moment; `problem` says what could not be asked. Without the URL of the
    dead-letter queue, the number of dead letters is not known.
    """

    loaded: Loaded
    messages: int
    dead_letters: int | None
    problem: str = ""


_WHERE = ("section_id", "categories", "start_date", "end_date", "s3_bucket", "s3_prefix")
"""Parameters of a request to load that one to verify has too."""


def wait_for(request: BulkRequest, settings: Settings, progress: Progress) -> dict[str, Any]:
    """Show the progress until the queue is empty, then verify what the request covers; returns what
    this adds to the answer.

    Objects that were uploaded since the request was sent may still wait in the queue of uploads.
    They do not count as missing.

    Raises RemoteFailed if the queue or the ledger cannot be asked, and trying again cannot help.
    """
    last = _emptied(request, settings, progress)
    minutes = min(max(time() - progress.started, 0) / 60, MAX_AGE_MINUTES)
    verifying = replace(
        request,
        verify=True,
        engine=FUNCTION,
        inventory=None,
        force_reprocess=False,
        replace=False,
        after="",
        min_age_minutes=minutes,
        allow_empty=True,
        scope={
            "verify": True,
            **{name: request.scope[name] for name in _WHERE if name in request.scope},
        },
    )
    say("the queue is empty: now it is verified that all is loaded")
    verified = run_verify(verifying, Run(settings, connections(settings), "bulk"))
    return {
        "success": verified["success"] and verified["complete"],
        "dead_letters": last.dead_letters,
        "verified": verified,
    }


def _emptied(request: BulkRequest, settings: Settings, progress: Progress) -> Look:
    """Look again and again, until all is loaded, or the queue stays empty; gives the last look."""
    empty_since: float | None = None
    look = Look(Loaded(0, 0), 0, 0)
    with _showing(progress) as show:
        while True:
            look = _look(request, settings, progress, look)
            show(look)
            now = monotonic()
            if look.messages or look.problem:
                empty_since = None
            else:
                empty_since = now if empty_since is None else empty_since
                all_loaded = look.loaded.objects >= progress.objects
                if all_loaded or now - empty_since >= EMPTY_SECONDS:
                    return look
            sleep(LOOK_SECONDS)


def _look(request: BulkRequest, settings: Settings, progress: Progress, before: Look) -> Look:
    from botocore.exceptions import BotoCoreError, ClientError

    clickhouse = connections(settings).clickhouse
    try:
        messages = sum(sqs.depth(settings.backfill_queue_url).values())
        dead_url = settings.dead_letter_queue_url
        dead_letters = sum(sqs.depth(dead_url).values()) if dead_url else None
        found = loaded(clickhouse, request, progress.started)
    except (BotoCoreError, ClientError, ClickHouseError) as error:
        if not _may_pass(error):
            raise RemoteFailed(f"all is sent, but how far it is cannot be seen: {error}") from None
        return replace(before, problem=str(error))
    return Look(found, messages, dead_letters)


def _may_pass(error: Exception) -> bool:
    """Whether the same question may be answered later."""
    if isinstance(error, ClickHouseError):
        return error.retryable
    answered: Mapping[str, Any] = getattr(error, "response", {})
    status = answered.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    return status >= 500 or "Throttl" in answered.get("Error", {}).get("Code", "")


@contextmanager
def _showing(progress: Progress) -> Iterator[Callable[[Look], None]]:
    """A progress bar on standard error or, where that is no terminal, a line every minute; gives a
    function to call with every look.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objects, {task.fields[note]}", markup=False),
    )
    told_at = -float(TOLD_SECONDS)
    begun: tuple[float, int] | None = None
    with bar(*columns, transient=False) as shown:
        task = shown.add_task("backfill", total=progress.objects, note="")

        def show(look: Look) -> None:
            nonlocal told_at, begun
            done = min(look.loaded.objects, progress.objects)
            begun = begun or (monotonic(), done)
            pace = _pace(done - begun[1], progress.objects - done, monotonic() - begun[0])
            note = f"{_note(look)}{pace}"
            shown.update(task, completed=done, note=note)
            if shown.disable and monotonic() - told_at >= TOLD_SECONDS:
                told_at = monotonic()
                say(f"{done:,} of {progress.objects:,} objects, {note}")

        yield show


def _pace(done: int, left: int, seconds: float) -> str:
    """How fast it was until now, and how long the rest takes at that rate."""
    if done <= 0 or seconds <= 0:
        return ""
    rate = done / seconds
    return f", {rate:,.1f} objects a second, {timedelta(seconds=round(left / rate))} left"


def _note(look: Look) -> str:
    if look.problem:
        return look.problem
    dead = f", {look.dead_letters:,} dead letters" if look.dead_letters else ""
    return f"{look.loaded.statements:,} statements, {look.messages:,} messages left{dead}"
