"""What one invocation knows: its settings, its connections, its deadline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple
from uuid import uuid4

from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.storage.learners import Learners
from xapi_etl_processor.storage.notes import State

RESERVE_SECONDS = 15
"""The part of an invocation's time that is kept for storing what was read. Our choice."""


@dataclass
class Connections:
    """The two services, and the list of forgotten learners, kept between invocations."""

    s3: Stores
    clickhouse: ClickHouse
    learners: Learners = field(init=False)

    def __post_init__(self) -> None:
        """Make the list, which is read from this ClickHouse."""
        self.learners = Learners(self.clickhouse)


@lru_cache(maxsize=1)
def connections(settings: Settings) -> Connections:
    """The connections for these settings, made once; both connect when they are first used."""
    return Connections(Stores(settings.bucket_owner), ClickHouse(settings))


class Wanted(NamedTuple):
    """What is to be done with the objects.

    `force` loads what the ledger knows already, except what was processed at `forced_since`
    (milliseconds since 1970) or later, unless that is 0. `replace` removes what earlier versions of
    the objects left behind.
    """

    dry_run: bool = False
    force: bool = False
    replace: bool = False
    forced_since: int = 0


@dataclass
class Run:
    """One invocation: its settings, connections, mode and deadline, and what is wanted of it.

    Reading stops at `read_until`; from then to `deadline`, what was read is stored. `notes_seen` is
    what was noted before the first object was read.
    """

    settings: Settings
    connections: Connections
    mode: str
    wanted: Wanted = field(default_factory=Wanted)
    deadline: Deadline = FOREVER
    run_id: str = field(default_factory=lambda: str(uuid4()))
    notes_seen: State | None = None
    read_until: Deadline = field(init=False)

    def __post_init__(self) -> None:
        """Keep time for storing. Raises BadRequest for wishes that contradict each other."""
        if self.wanted.replace and self.wanted.dry_run:
            raise BadRequest("replace does not go with dry_run, which writes nothing: send one")
        self.read_until = self.deadline.earlier(RESERVE_SECONDS, share=1 / 3)

    @property
    def out_of_time(self) -> bool:
        """Whether no new work may begin."""
        return self.read_until.has_passed
