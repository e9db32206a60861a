"""What may be stored of learners: nothing of those who were forgotten, and of others their ids or
pseudonyms (see docs/privacy.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from xapi_etl_processor.base import secrets
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.base.deadlines import FOREVER, Deadline
from xapi_etl_processor.base.errors import ConfigurationError
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.storage import notes
from xapi_etl_processor.xapi.learners import fingerprint, key_id, name_hash, pseudonym, texts_in

FRESH_SECONDS = 1.0
"""How long the list is taken for current before an insert. Our limit; after an insert it is always
read."""

MAX_KNOWN = 100_000
"""Pseudonyms kept between invocations, about 25 MB, and texts that were compared with the list,
about 15 MB. Our limit."""

MAX_KNOWN_LENGTH = 200
"""Characters of the longest text that is kept so. Our limit."""

Person = tuple[str, str]
"""A user id and its home page, '' if there is none; a viewer, as the views count them."""


def people(columns: Mapping[str, Sequence[Any]], rows: int) -> list[Person]:
    """Who each row is about; a column that is not there is empty in all rows."""
    nobody = [""] * rows
    users, pages = columns.get("user_id") or nobody, columns.get("home_page") or nobody
    return list(zip(users, pages, strict=True))


@dataclass
class Learners:
    """The list of forgotten learners, as it was last read, and the `state` of all notes then.

    `changes` goes up when the list has changed. One thread may ask it while another reads it again.
    """

    clickhouse: ClickHouse
    changes: int = 0
    state: notes.State | None = None
    _read_at: float = -FRESH_SECONDS
    _since: Mapping[str, datetime] = field(default_factory=dict)
    _keys: tuple[bytes, ...] = ()
    _named: dict[str, bool] = field(default_factory=dict)
    _pseudonyms: dict[str, str] = field(default_factory=dict)

    def refresh(self, deadline: Deadline = FOREVER, max_age: float = 0) -> None:
        """Read the notes, and the list if it has changed, unless they are younger than `max_age`
        seconds. Raises ClickHouseError, and ConfigurationError if a learner was forgotten under a
        key that is not set: nobody could tell whose statements must not be stored.
        """
        if time.monotonic() - self._read_at < max_age:
            return
        began = time.monotonic()
        self.heed(notes.read(self.clickhouse, deadline), began, deadline)

    def heed(self, state: notes.State, began: float, deadline: Deadline = FOREVER) -> None:
        """Take the notes that a query found, and when it began; read the list if it has changed.
        Raises as `refresh`.
        """
        known_before = self.state and self.state.forgotten
        number, _ = state.forgotten
        if number and state.forgotten != known_before:
            rows = self.clickhouse.query(
                "SELECT salt, key_id, learner, name, max(forgotten_at)"
                f" FROM {self.clickhouse.database}.{notes.FORGOTTEN} WHERE NOT again"
                " GROUP BY salt, key_id, learner, name",
                deadline=deadline,
                decisive=True,
            )
            secret = secrets.learner_key(self.clickhouse.settings, deadline)
            known = {"": b"", key_id(secret): secret} if secret else {"": b""}
            if unknown := {row[1] for row in rows} - known.keys():
                raise ConfigurationError(
                    f"LEARNER_KEY: {notes.FORGOTTEN} has learners who were forgotten under the key"
                    f" {min(unknown)}, which is not the one that is set: set that key again, or"
                    " their statements would come back"
                )
            self._keys = tuple({hash_key(salt, known[used]) for salt, used, *_ in rows})
            self._since = {text: row[4] for row in rows for text in row[2:4]}
        if not number:
            self._since = {}
        if state.forgotten != known_before:
            # In this order: what is found out with the former list is kept with the former names.
            self._named = {}
            self.changes += 1
        self.state = state
        self._read_at = began

    def check(self, deadline: Deadline = FOREVER) -> None:
        """Read the notes and, for pseudonyms, the key; raises as `refresh` and `check_ids`."""
        self.refresh(deadline)
        self.check_ids(deadline)

    def check_ids(self, deadline: Deadline = FOREVER) -> None:
        """Raises ConfigurationError if ids would be stored in another way than those that are
        there, or there is no key for pseudonyms.
        """
        if problem := self.ids_problem(deadline):
            raise ConfigurationError(problem)

    def ids_problem(self, deadline: Deadline = FOREVER) -> str:
        """Why ids must not be stored as LEARNER_IDS and the key say; '' if they may."""
        noted = self.state.learner_ids if self.state else ""
        own = self._own_key(deadline)
        if noted in ("", own):
            return ""
        under = f"under the key {own}" if own else "as they are (LEARNER_IDS is plain)"
        return (
            f"learners' ids would be stored {under}, and {self.clickhouse.database} has pseudonyms"
            f" under the key {noted}: set LEARNER_IDS=pseudonyms and that key (docs/privacy.md)"
        )

    def note_ids(self, deadline: Deadline = FOREVER) -> None:
        """Before the first pseudonyms are stored: note that all ids are, under this key."""
        if self.pseudonymous and self.state and not self.state.learner_ids:
            notes.note_learner_ids(self.clickhouse, self._own_key(deadline), deadline)
            self.refresh(deadline)

    def _own_key(self, deadline: Deadline) -> str:
        """The id of the key for pseudonyms, '' if ids are stored as they are."""
        if not self.pseudonymous:
            return ""
        return key_id(pseudonym_key(self.clickhouse.settings, deadline))

    @property
    def anybody(self) -> bool:
        """Whether anybody was forgotten."""
        return bool(self._since)

    def forgotten(self, people: Iterable[Person]) -> dict[Person, datetime]:
        """Those of these people who were forgotten, and when each was put on the list last."""
        listed, keys = self._since, self._keys
        if not listed:
            return {}
        found = {}
        for person in people:
            if self._is_named(person[0]):
                pages = (None, person[1])
                texts = (fingerprint(person[0], page, key) for key in keys for page in pages)
                if since := [listed[text] for text in texts if text in listed]:
                    found[person] = max(since)
        return found

    def _is_named(self, text: str) -> bool:
        """Whether a text is the user id of a forgotten learner, on whatever home page."""
        names = self._named
        known = names.get(text)
        if known is None:
            known = any(name_hash(text, key) in self._since for key in self._keys)
            # Hashing everybody again for each statement would take half as long as the load itself.
            if len(text) <= MAX_KNOWN_LENGTH:
                if len(names) >= MAX_KNOWN:
                    names.clear()
                names[text] = known
        return known

    def may_keep(self, line: bytes) -> bool:
        """Whether a rejected line may be kept: not with pseudonyms, nor of a forgotten learner, nor
        with zero bytes, as UTF-16 has: nobody could find a name in it.
        """
        return not self.pseudonymous and b"\0" not in line and not self.names_forgotten(line)

    def names_forgotten(self, line: bytes) -> bool:
        """Whether a line names a forgotten learner, as a text in quotes or as a word."""
        return bool(self._since) and any(map(self._is_named, texts_in(line)))

    @property
    def pseudonymous(self) -> bool:
        """Whether user ids are stored as pseudonyms."""
        return self.clickhouse.settings.learner_ids == "pseudonyms"

    def pseudonyms(self, user_ids: Iterable[str]) -> list[str]:
        """What is stored instead of user ids; raises ConfigurationError if there is no key."""
        key = pseudonym_key(self.clickhouse.settings)
        known = self._pseudonyms
        if len(known) > MAX_KNOWN:
            known.clear()
        return [
            user and (known.get(user) or known.setdefault(user, pseudonym(user, key)))
            for user in user_ids
        ]


def pseudonym_key(settings: Settings, deadline: Deadline = FOREVER) -> bytes:
    """The key for pseudonyms; raises ConfigurationError if there is none."""
    if key := secrets.learner_key(settings, deadline):
        return key
    raise ConfigurationError(
        "LEARNER_IDS is pseudonyms, which needs a key: set LEARNER_KEY_SECRET_ARN"
    )


def hash_key(salt: str, secret: bytes) -> bytes:
    """The key of the hashes of forgotten learners; the salt is stored beside them."""
    return secret + salt.encode()
