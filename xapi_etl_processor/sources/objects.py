"""An S3 object by name, and what its key says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from xapi_etl_processor.xapi.values import milliseconds, since_epoch

BUNDLE_ENDINGS = (".jsonl", ".jsonl.gz")
"""What a bundle's key ends in."""

_SECTION = re.compile(r"(?:^|/)section/([0-9]{1,19})/", re.ASCII)
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d)[-:](\d\d)[-:](\d\d)(?:[.,](\d{1,9}))?Z?(?=[_.]|$)", re.ASCII
)


@dataclass(frozen=True)
class S3Object:
    """An object as a notification or a listing names it; its key is not URL-encoded.

    `etag` is '', and `size` (bytes) and `modified` are None, if the source does not say.
    """

    bucket: str
    key: str
    etag: str = ""
    size: int | None = None
    modified: datetime | None = None

    @property
    def uri(self) -> str:
        """s3://bucket/key"""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def is_bundle(self) -> bool:
        """Whether the key is that of a bundle."""
        return self.key.lower().endswith(BUNDLE_ENDINGS)

    @property
    def section_id(self) -> int | None:
        """The section in `section/{id}/` of the key."""
        found = _SECTION.search(self.key)
        return int(found[1]) if found else None

    @property
    def key_timestamp_ms(self) -> int | None:
        """Milliseconds since 1970: the UTC timestamp that the file name starts with."""
        found = _TIMESTAMP.match(self.key.rpartition("/")[2])
        if not found:
            return None
        day, hour, minute, second, fraction = found.groups()
        return milliseconds(f"{day}T{hour}:{minute}:{second}.{fraction or 0}Z")

    @property
    def written_at_ms(self) -> int | None:
        """Milliseconds since 1970: the timestamp in the key, else when the object was modified."""
        if self.key_timestamp_ms is None and self.modified is not None:
            return since_epoch(self.modified)
        return self.key_timestamp_ms
