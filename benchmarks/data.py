"""The objects that the benchmarks read: video statements, made from those of the demo."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from itertools import count, islice
from pathlib import Path

from local.bundles import generate
from tests.faults.drill_plan import PlannedBundle
from tests.support.samples import event_id

SECTIONS, EACH = 5, 10
"""Sections that planned bundles belong to, and statements in each bundle."""

KEY = "section/2001/video/2024-01-01T00-00-00Z_{:06}.jsonl"
_GUID = "http://oli.cmu.edu/extensions/page_attempt_guid"
_MARK = "(number)"  # as long as the hexadecimal number that takes its place


def statements() -> Iterator[bytes]:
    """Video statements of 1.1 kB, each a line with its newline, without end; no two are equal, nor
    are two ids.
    """
    templates = []
    for bundle in generate(days=6, bundles_per_day=20):
        for line in sorted(bundle.video_lines):
            statement = json.loads(line)
            statement["context"]["extensions"][_GUID] = f"attempt-{_MARK}"
            if "id" in statement:
                statement["id"] = statement["id"][: -len(_MARK)] + _MARK
            text = json.dumps(statement, separators=(",", ":"), ensure_ascii=False).encode()
            templates.append(text.split(_MARK.encode()))
    numbers = count()
    while True:
        for parts in templates:
            yield (b"%08x" % next(numbers)).join(parts) + b"\n"


def not_video(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The same statements, about 1% longer, about pages instead of videos."""
    for line in lines:
        yield line.replace(b"w3id.org/xapi/video", b"example.org/xapi/page")


def write_object(path: Path, lines: Iterator[bytes], number: int) -> None:
    """Write that many lines into a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.writelines(islice(lines, number))


def write_bundles(bucket: Path, objects: int, each: int) -> None:
    """Write that many bundles of `each` statements, with the keys of the first numbers."""
    lines = statements()
    for number in range(objects):
        write_object(bucket / KEY.format(number), lines, each)


def planned(number: int, uploaded: datetime) -> PlannedBundle:
    """The bundle with this number and its body; its key and statements name the time."""
    section = 2001 + number % SECTIONS
    ids = statement_ids(number)
    text = _template().replace("(time)", f"{uploaded:%Y-%m-%dT%H:%M:%SZ}")
    text = text.replace('"(section)"', str(section))
    key = f"section/{section}/video/{uploaded:%Y-%m-%dT%H-%M-%SZ}_{number:08}.jsonl"
    return PlannedBundle(key, "".join(text.replace("(id)", own) for own in ids).encode(), ids)


def statement_ids(number: int) -> list[str]:
    """The ids of the statements of the planned bundle with this number."""
    return [event_id(own) for own in range(number * EACH, (number + 1) * EACH)]


@cache
def _template() -> str:
    """A statement as long as those of the other benchmarks."""
    made = json.loads(next(statements())) | {"id": "(id)", "timestamp": "(time)"}
    made["context"]["extensions"]["http://oli.cmu.edu/extensions/section_id"] = "(section)"
    return json.dumps(made, separators=(",", ":")) + "\n"
