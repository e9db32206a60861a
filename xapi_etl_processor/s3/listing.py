"""Lists objects of S3, and asks only for what is wanted: some sections, categories and days.

S3 lists keys in the order of their UTF-8 bytes; in a store that lists otherwise, keys would be
missed. With a delimiter, S3 names groups of keys instead of keys: "/" gives the sections, and the
"T" of timestamps gives the days.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from threading import Event, Lock
from typing import NamedTuple, TypeVar

from xapi_etl_processor.base.deadlines import FOREVER, DaemonThreads, Deadline
from xapi_etl_processor.base.errors import S3Late, S3NotAllowed, S3Unordered
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.errors import translated
from xapi_etl_processor.s3.objects import S3Object, day_of, holds_sections
from xapi_etl_processor.xapi.timestamps import milliseconds

FOLDERS_AHEAD = 16
"""How many folders are listed at the same time. Our choice: a request takes S3 some 0.1 s."""

PAGE_KEYS = 1000
"""How many keys one request names. S3's limit."""

_OTHER_GROUPS = 10
"""How many groups of a folder may have other names than days before the rest of the folder is
listed key by key. Our limit: each takes a request."""

_DAY = re.compile(r"(.*/|)(\d{4}-\d\d-\d\d)T", re.ASCII | re.DOTALL)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Scope:
    """What of a bucket is wanted: `sections` are prefixes below `prefix`, in order, None for all of
    it; `days` are the first and the last, such as 2024-01-31, or texts before and after all. Others
    are left out only where that saves requests: the caller must still look at each key.
    """

    bucket: str
    prefix: str = ""
    sections: tuple[str, ...] | None = None
    categories: tuple[str, ...] = ()
    days: tuple[str, str] | None = None


@dataclass
class Progress:
    """How many requests a listing has taken. All keys up to `reached` were given; of them, the
    caller counts those that are `ignored`.
    """

    calls: int = 0
    reached: str = ""
    ignored: int = 0
    _lock: Lock = field(default_factory=Lock)

    def count(self) -> None:
        """Count a request, from any thread."""
        with self._lock:
            self.calls += 1


def listing(
    stores: Stores,
    scope: Scope,
    after: str = "",
    deadline: Deadline = FOREVER,
    progress: Progress | None = None,
) -> Iterator[S3Object]:
    """The objects of the scope after a key, in order. Raises S3Error."""
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/s3-express-differences.html
    if scope.bucket.endswith("--x-s3"):
        raise S3NotAllowed(
            f"s3://{scope.bucket} is a directory bucket, which lists keys in no order: load its"
            " objects by name, or copy them to a general purpose bucket"
        )
    requests = _Requests(stores, scope.bucket, progress or Progress())
    for folder, objects in _folders(requests, scope, after, deadline):
        for obj in objects:
            # Where two listings overlap, both have it.
            if obj.key > requests.progress.reached and obj.key > after:
                yield obj
                requests.progress.reached = obj.key
        requests.progress.reached = max(requests.progress.reached, _end(folder))


def _folders(
    requests: _Requests, scope: Scope, after: str, deadline: Deadline
) -> Iterator[tuple[str, Iterator[S3Object]]]:
    """Each folder of the scope with its objects; the next ones are being listed already."""
    uri = f"s3://{scope.bucket}/{scope.prefix}"
    with closing(DaemonThreads(FOLDERS_AHEAD + 1)) as threads, ExitStack() as at_end:
        # Threads that are still listing then ask S3 no more.
        at_end.callback(requests.ended.set)
        folders = _fetched(requests.folders(scope, after), threads, deadline, uri)
        coming: deque[tuple[str, Iterator[S3Object]]] = deque()
        while True:
            for folder in islice(folders, FOLDERS_AHEAD - len(coming)):
                within = requests.within(folder, scope.days, after)
                coming.append((folder, _fetched(within, threads, deadline, uri)))
            if not coming:
                return
            yield coming.popleft()


def _fetched(
    source: Iterator[_Item], threads: DaemonThreads, deadline: Deadline, uri: str
) -> Iterator[_Item]:
    """Passes the items on; a thread fetches the next ones meanwhile, from this call on."""

    def some() -> list[_Item]:
        return list(islice(source, PAGE_KEYS))

    coming = threads.submit(some)

    def items() -> Iterator[_Item]:
        nonlocal coming
        while True:
            try:
                found = coming.result(deadline.timeout)
            except TimeoutError:
                raise S3Late(f"{uri} was not listed in time, S3 is slow: try again") from None
            if not found:
                return
            coming = threads.submit(some)
            yield from found

    return items()


class _Day(NamedTuple):
    folder: str
    day: str


@dataclass(frozen=True)
class _Requests:
    """Lists a bucket, one request after the other."""

    stores: Stores
    bucket: str
    progress: Progress
    ended: Event = field(default_factory=Event)

    def folders(self, scope: Scope, after: str) -> Iterator[str]:
        """The prefixes to list that have keys after `after`, in order; a key may be its own."""
        sections: Iterable[str] = (scope.prefix,)
        if scope.sections is not None:
            sections = scope.sections
        elif holds_sections(scope.prefix) and (scope.days or scope.categories):
            sections = map(_key, self._entries(scope.prefix, after, "/"))
        for section in sections:
            within = [f"{section}{category}/" for category in scope.categories]
            folders = within if within and _is_section(section) else [section]
            yield from (folder for folder in folders if not folder or after < _end(folder))

    def within(self, folder: str, days: tuple[str, str] | None, after: str) -> Iterator[S3Object]:
        """The objects of a folder after `after`; some may be given twice."""
        if not days:
            yield from self._every(folder, after)
            return
        first, last = days
        for entry in self._days(folder, after):
            if isinstance(entry, S3Object):
                yield entry
            elif first <= entry.day <= last and after < (end := f"{entry.folder}{last}U"):
                for obj in self._every(entry.folder, max(after, f"{entry.folder}{first}")):
                    if obj.key >= end:
                        break
                    yield obj
                after = end

    def _days(self, folder: str, after: str) -> Iterator[S3Object | _Day]:
        """The days of a folder, and its objects without a day, in order; some may come twice."""
        if day_of(folder[: folder.rfind("/") + 1]) is not None:
            yield from self._every(folder, after)
            return
        others = 0
        for entry in self._entries(folder, after, "T"):
            if isinstance(entry, S3Object):
                yield entry
            elif day := _day(entry):
                yield day
            elif others < _OTHER_GROUPS:
                others += 1
                yield from self._days(entry, after)
            else:
                yield from self._every(folder, max(after, entry[:-1]))
                return

    def _every(self, prefix: str, after: str) -> Iterator[S3Object]:
        for entry in self._entries(prefix, after):
            if isinstance(entry, S3Object):
                yield entry

    def _entries(self, prefix: str, after: str, delimiter: str = "") -> Iterator[S3Object | str]:
        """The objects after `after` and, with a delimiter, the groups, in order."""
        rest = after[len(prefix) :]
        if delimiter and after.startswith(prefix) and delimiter in rest:
            # S3's answer may begin behind the group that `after` is in.
            group = f"{prefix}{rest.partition(delimiter)[0]}{delimiter}"
            yield group
            after = _behind(group)
        last, held = "", list[S3Object | str]()
        with translated(f"s3://{self.bucket}/{prefix}"):
            paginator = self.stores.boto3.get_paginator("list_objects_v2")
            for page in paginator.paginate(
                Bucket=self.bucket, Prefix=prefix, StartAfter=after, Delimiter=delimiter
            ):
                self.progress.count()
                if self.ended.is_set():
                    return
                entries: list[S3Object | str] = [
                    S3Object(
                        self.bucket,
                        found["Key"],
                        found["ETag"].strip('"'),
                        found["Size"],
                        found["LastModified"],
                    )
                    for found in page.get("Contents", ())
                ]
                entries += (group["Prefix"] for group in page.get("CommonPrefixes", ()))
                entries.sort(key=_key)
                if entries and _key(entries[0]) < last:
                    raise S3Unordered(
                        f"s3://{self.bucket}/{prefix}: the store lists {_key(entries[0])!r} on a"
                        f" later page than {last!r}. S3 lists in the order of keys; here, a listing"
                        " would miss objects: name them with the command `event`"
                    )
                last = _key(entries[-1]) if entries else last
                # Given only now: if the store has no order, nobody may go on behind these.
                yield from held
                held = entries
                if not page.get("IsTruncated"):
                    yield from held


def _is_section(folder: str) -> bool:
    above, _, name = folder.removesuffix("/").rpartition("/")
    return folder.endswith("/") and bool(name) and holds_sections(f"{above}/")


def _day(group: str) -> _Day | None:
    """The day that a group stands for; None if it stands for something else, such as a section."""
    found = _DAY.fullmatch(group)
    if not found or holds_sections(found[1]) or milliseconds(found[2]) is None:
        return None
    return _Day(*found.groups())


def _key(entry: S3Object | str) -> str:
    return entry if isinstance(entry, str) else entry.key


def _behind(group: str) -> str:
    """A text that sorts after every key in a group, and before every other bundle."""
    return f"{group[:-1]}{chr(ord(group[-1]) + 1)}"


def _end(prefix: str) -> str:
    """A text that sorts after every key in a folder; for a key, the key itself."""
    if not prefix:
        return "\U0010ffff"
    return _behind(prefix) if prefix.endswith("/") else prefix
