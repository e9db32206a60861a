"""Bundles whose statements follow from a number, so that what is stored can be compared with what
was written without reading the objects again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks import data, static_s3
from xapi_etl_processor.queues.messages import messages
from xapi_etl_processor.queues.payloads import Backfill
from xapi_etl_processor.s3.objects import S3Object

EACH = 10
"""Statements in a bundle."""

SECTIONS = 5
MONTHS = 6
LIVE = 50_000_000
"""The number of the first bundle that is uploaded now; those of history begin at 0."""

SUM_OF_DIGESTS = (
    "sum(reinterpretAsUInt64(substring(MD5(concatWithSeparator('|', event_id, toString(timestamp),"
    " user_id, toString(section_id), verb, toString(toUInt32(video_time)))), 1, 8)))"
)
"""What `History.digest` gives, from stored rows."""

_EXTENSIONS = "https://w3id.org/xapi/video/extensions/"
_SECTION = "http://oli.cmu.edu/extensions/section_id"


class Statement(NamedTuple):
    """What differs between statements."""

    event_id: str
    timestamp: str
    user_id: str
    section_id: str
    verb: str
    video_time: str

    @property
    def digest(self) -> int:
        """The first 64 bits of an MD5 of it all."""
        return int.from_bytes(hashlib.md5("|".join(self).encode()).digest()[:8], "little")  # noqa: S324

    @property
    def line(self) -> str:
        """The statement as JSON, as long as those of the other benchmarks."""
        text = _template()
        for name, value in self._asdict().items():
            text = text.replace(f"({name})", value)
        return text


@cache
def _template() -> str:
    made = json.loads(next(data.statements()))
    made |= {"id": "(event_id)", "timestamp": "(timestamp)"}
    made["actor"]["account"]["name"] = "(user_id)"
    made["verb"]["id"] = "https://w3id.org/xapi/video/verbs/(verb)"
    made["context"]["extensions"][_SECTION] = "(section_id)"
    made["result"]["extensions"][_EXTENSIONS + "time"] = "(video_time)"
    return json.dumps(made, separators=(",", ":"))


@dataclass(frozen=True)
class History:
    """So many bundles of months that have passed, and any number of live ones, in a folder that
    `static_s3` serves as a bucket.
    """

    folder: Path
    bundles: int

    def key(self, number: int) -> str:
        """The key of a bundle."""
        return (
            f"section/{_section(number)}/video/"
            f"{self._uploaded(number):%Y-%m-%dT%H-%M-%SZ}_{number:08}.jsonl"
        )

    def write(self, number: int) -> None:
        """Write a bundle's object."""
        path = self.folder / self.key(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [statement.line for statement in self._statements(number)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def digest(self, number: int) -> int:
        """The sum of the digests of a bundle's statements, in the 64 bits that ClickHouse adds."""
        return sum(statement.digest for statement in self._statements(number)) % 2**64

    def messages(self, records: int) -> list[str]:
        """The bodies of the messages for all of history, as a bulk request sends them, but with up
        to so many records.
        """
        numbers = range(self.bundles)
        parts = [numbers[at : at + records] for at in range(0, self.bundles, records)]
        return [
            message.body
            for part in parts
            for message in messages(map(self.object, part), Backfill())
        ]

    def notification(self, number: int) -> str:
        """What S3 sends about one bundle."""
        (message,) = messages([self.object(number)], Backfill())
        return message.body

    def object(self, number: int) -> S3Object:
        """A bundle as S3 lists it."""
        key = self.key(number)
        path = self.folder / key
        return S3Object(self.folder.name, key, static_s3.etag(path), path.stat().st_size)

    def _statements(self, number: int) -> Iterator[Statement]:
        time = f"{self._uploaded(number):%Y-%m-%d %H:%M:%S.000}"
        for own in range(number * EACH, (number + 1) * EACH):
            yield Statement(
                event_id=f"00000000-0000-4000-8000-{own:012x}",
                timestamp=time,
                user_id=f"viewer-{own % 997}",
                section_id=str(_section(number)),
                verb=("played", "paused", "seeked", "completed")[own % 4],
                video_time=str(own % 600),
            )

    def _uploaded(self, number: int) -> datetime:
        if number >= LIVE:
            return datetime(2024, MONTHS + 1, 1, tzinfo=UTC) + timedelta(seconds=number - LIVE)
        month = 1 + number * MONTHS // self.bundles
        return datetime(2024, month, 1, tzinfo=UTC) + timedelta(seconds=number % (28 * 86400))


def _section(number: int) -> int:
    return 2001 + number % SECTIONS
