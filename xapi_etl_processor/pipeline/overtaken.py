"""Checks, before and after an insert, that nothing in the batch was forbidden by a note since its
objects were read.
"""

from __future__ import annotations

from xapi_etl_processor.base.errors import LoadOvertaken
from xapi_etl_processor.pipeline.batch import Batch
from xapi_etl_processor.s3.objects import S3Object
from xapi_etl_processor.storage import notes
from xapi_etl_processor.storage.learners import people
from xapi_etl_processor.storage.tables import EVENTS

LEFT_OUT_IDS = 50_000
"""Ids that one query looks for. Our choice: 2 MB of text."""


def check(batch: Batch, *, stored: bool) -> None:
    """Raises LoadOvertaken if the batch holds what may no longer be stored. If it is stored
    already, the commands that put it right are noted.
    """
    connections, deadline = batch.run.connections, batch.run.deadline
    found: dict[str, str] = {}
    if connections.learners.ids_problem(deadline):
        found[notes.PSEUDONYMIZE] = "ids became pseudonyms"
    if _has_forgotten(batch):
        found[notes.SWEEP] = "a learner was forgotten"
    for obj in _replaced(batch):
        found[notes.replace_command(obj)] = f"{obj.uri} was replaced by a later version"
    if not found:
        return
    if stored:
        notes.note_overtaken(connections.clickhouse, list(found), deadline)
    reasons = " and ".join(found.values())
    raise LoadOvertaken(f"while objects were loaded, {reasons}: load the objects again")


def look_again(batch: Batch, stored: bool = True) -> None:
    """`check`, with the notes as they are now."""
    if batch.rows or batch.rejected or any(o.counts.video for o in batch.outcomes):
        batch.run.connections.learners.refresh(batch.run.deadline)
        check(batch, stored=stored)


def look_for_left_out(batch: Batch) -> None:
    """Note it if rows that this batch leaves out were stored after their learner was forgotten, by
    a load that ended before it could note it itself.
    """
    keys = tuple(batch.left_out)
    clickhouse, deadline = batch.run.connections.clickhouse, batch.run.deadline
    for first in range(0, len(keys), LEFT_OUT_IDS):
        part = keys[first : first + LEFT_OUT_IDS]
        stored = clickhouse.query(
            f"SELECT section_id, event_id, max(inserted_at) FROM {clickhouse.database}.{EVENTS}"
            # The section leads the table's key.
            " WHERE section_id IN %(sections)s AND event_id IN %(ids)s"
            " GROUP BY section_id, event_id",
            {
                "sections": tuple({section for section, _ in part}),
                "ids": tuple(event for _, event in part),
            },
            deadline,
            decisive=True,
        )
        if any(at > batch.left_out.get((section, event), at) for section, event, at in stored):
            notes.note_overtaken(clickhouse, [notes.SWEEP], deadline)
            return


def _has_forgotten(batch: Batch) -> bool:
    learners = batch.run.connections.learners
    if learners.changes == batch.learners_seen:
        return False
    # Who was forgotten is on the list by name and by pseudonym.
    forgotten = learners.forgotten(set(people(batch.columns, batch.rows)))
    kept = all(learners.may_keep(line.line) for _, line in batch.rejected if line.line)
    return bool(forgotten) or not kept


def _replaced(batch: Batch) -> list[S3Object]:
    """The batch's objects that were replaced by later versions since this run began to read."""
    run = batch.run
    seen, now = run.notes_seen, run.connections.learners.state
    if seen is None or now is None or now.replaced == seen.replaced:
        return []
    ended = {outcome.obj.uri: outcome.obj for outcome in batch.outcomes}
    objects = list((ended | batch.objects).values())
    return notes.replaced_since(run.connections.clickhouse, objects, seen, run.deadline)
