"""An S3 object by name, and what its key says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from xapi_etl_processor.xapi.timestamps import instant, milliseconds, since_epoch

BUNDLE_ENDINGS = (".jsonl", ".jsonl.gz")
"""What a bundle's key ends in."""

MAX_SECTION_NUMBER = 2**64 - 1
"""The largest number that the column `section_id`, a UInt64, holds."""

SECTION = r"(?:^|/)section/([^/]+)/"
CATEGORY = r"(?:^|/)section/[^/]+/([^/]+)/"
DAY = r"(?:^|/)([0-9]{4}-[0-9]{2}-[0-9]{2})T"
"""What keys say, as regular expressions: Python and ClickHouse read them alike."""

_SECTION, _CATEGORY, _DAY = map(re.compile, (SECTION, CATEGORY, DAY))
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:](\d\d)(?:[.,](\d{1,9}))?Z?(?=[_.]|$)", re.ASCII
)


@dataclass(frozen=True)
class S3Object:
    """An object as a notification or a listing names it; its key is not URL-encoded. `etag` is '',
    and `size` (bytes) and `modified` are None, if the source does not say. With `is_file` it is a
    file on this machine: its key is its absolute path, its bucket ''.
    """

    bucket: str
    key: str
    etag: str = ""
    size: int | None = None
    modified: datetime | None = None
    is_file: bool = False

    @property
    def uri(self) -> str:
        """s3://bucket/key, or file:///path."""
        return f"file://{self.key}" if self.is_file else f"s3://{self.bucket}/{self.key}"

    @property
    def is_bundle(self) -> bool:
        """Whether the key is that of a bundle."""
        return self.key.lower().endswith(BUNDLE_ENDINGS)

    @property
    def section(self) -> str:
        """The text of the first `section/{text}/` in the key; '' if there is none."""
        found = _SECTION.search(self.key)
        return found[1] if found else ""

    @property
    def category(self) -> str:
        """The folder after the section's in the key; '' if there is none."""
        found = _CATEGORY.search(self.key)
        return found[1] if found else ""

    @property
    def section_id(self) -> int | str | None:
        """The section as requests and answers name it: an int if it is a number, else its text."""
        return section_id(self.section) if self.section else None

    @property
    def key_timestamp_ms(self) -> int | None:
        """Milliseconds since 1970: the UTC timestamp that the file name starts with."""
        found = _TIMESTAMP.match(self.key.rpartition("/")[2])
        if not found:
            return None
        day, hour, minute, second, fraction = found.groups()
        return milliseconds(f"{day}T{hour}:{minute}:{second}.{fraction or 0}Z")

    @property
    def modified_ms(self) -> int | None:
        """Milliseconds since 1970: when the object was modified, if the source says so."""
        return since_epoch(self.modified) if self.modified else None

    @property
    def written_ms(self) -> int | None:
        """Milliseconds since 1970: the key's day (`day_of`), else when the object was modified."""
        day = day_of(self.key)
        return self.modified_ms if day is None else day

    @property
    def month(self) -> str:
        """The UTC month of `written_ms`, such as 2024-01; '' if that is not known."""
        written = self.written_ms
        return "" if written is None else f"{instant(written):%Y-%m}"


def object_at(uri: str) -> S3Object:
    """The object or file that a row's `source_file` names."""
    if uri.startswith("file://"):
        return object_in("", uri.removeprefix("file://"))
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return object_in(bucket, key)


def object_in(bucket: str, key: str) -> S3Object:
    """The object, or the file, that the ledger has under this bucket and key."""
    return S3Object(bucket, key, is_file=not bucket)


def section_of(column: str) -> str:
    """SQL for the section in a column of keys or URIs, as text: what `section_id` makes of it."""
    return f"replaceRegexpOne(extract({column}, '{SECTION}'), '^0+([0-9])', '\\\\1')"


def holds_sections(prefix: str) -> bool:
    """Whether the folders in this folder are those of sections."""
    return f"/{prefix}".endswith("/section/") and not S3Object("", prefix).section


def day_of(key: str) -> int | None:
    """The UTC day that a key names, in milliseconds since 1970 at its beginning: that of the first
    name below the section's that begins with a day and a T. None if there is none.
    """
    section = _SECTION.search(key)
    for found in _DAY.finditer(key, section.end() - 1 if section else 0):
        if (day := milliseconds(found[1])) is not None:
            return day
    return None


def section_id(section: str) -> int | str:
    """A section that is a number as an int, so that 007 is 7; any other as it is."""
    number = int(section) if _NUMBER.fullmatch(section) else MAX_SECTION_NUMBER + 1
    return number if number <= MAX_SECTION_NUMBER else section
