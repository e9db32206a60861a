"""The plan of a drill, made from its seed alone: bundles, deliveries, and kills."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tests.faults.drill_servers import DATABASE
from tests.support.samples import BAD_LINE, event_id, notification, other, video

SECTIONS = (11, 12, 13)
SHARED = 10_000_000
"""Statements with numbers from here on are in several bundles."""

Victim = Literal["client", "server"]


class Kill(NamedTuple):
    """What to kill, and how many seconds after the previous kill; `choice` picks the client."""

    victim: Victim
    delay: float
    choice: float


@dataclass
class PlannedBundle:
    """An object, and what each of its lines is."""

    key: str
    body: bytes
    video: list[str] = field(default_factory=list)
    other: int = 0
    blank: int = 0
    rejected: list[int] = field(default_factory=list)

    @property
    def counts(self) -> tuple[int, int, int, int, int]:
        """Lines, video, other, blank, rejected, as the ledger should have them."""
        parts = (len(self.video), self.other, self.blank, len(self.rejected))
        return (sum(parts), *parts)


def kills(seed: int, clients: int, servers: int) -> list[Kill]:
    """The schedule: each kill at a random moment after the previous one."""
    dice = random.Random(f"kills {seed}")
    victims: list[Victim] = [*["client"] * clients, *["server"] * servers]  # type: ignore[list-item]
    dice.shuffle(victims)
    return [Kill(victim, dice.uniform(0.02, 0.7), dice.random()) for victim in victims]


def bundle(seed: int, number: int) -> PlannedBundle:
    """The bundle with this number: of 1 to 700 lines of every kind, plain or gzip."""
    dice = random.Random(f"bundle {seed} {number}")
    section = dice.choice(SECTIONS)
    zipped = dice.random() < 0.3
    key = f"section/{section}/video/2024-0{dice.randint(1, 9)}-01T00-00-00Z_{number}.jsonl"
    made = PlannedBundle(key + ".gz" * zipped, b"")
    lines: list[bytes] = []
    for position in range(dice.choice((1, 5, 20, 60, 700))):
        kind = dice.choices(("video", "shared", "other", "blank", "bad"), (80, 8, 8, 2, 2))[0]
        if position == 0 or kind == "video":
            # The first line is a statement, because a bundle without any would fail.
            lines.append(_statement(made, number * 1000 + position, dice))
        elif kind == "shared":
            lines.append(_statement(made, SHARED + dice.randrange(200), dice))
        elif kind == "other":
            lines.append(json.dumps(other(position)).encode())
            made.other += 1
        elif kind == "blank":
            lines.append(b" ")
            made.blank += 1
        else:
            lines.append(BAD_LINE)
            made.rejected.append(len(lines))
    text = b"".join(line + b"\n" for line in lines)
    made.body = gzip.compress(text, mtime=0) if zipped else text
    return made


def _statement(made: PlannedBundle, number: int, dice: random.Random) -> bytes:
    made.video.append(event_id(number))
    # Timestamp and section depend on the number alone, so that copies of a statement agree on them.
    own = random.Random(number)
    more = {
        "timestamp": f"2024-0{own.randint(1, 9)}-1{own.randint(0, 9)}T00:00:00Z",
        "context": {"extensions": {"http://oli.cmu.edu/extensions/section_id": own.randint(1, 3)}},
    }
    return json.dumps(video(number, **more, padding="x" * dice.randint(0, 600))).encode()


def deliveries(
    seed: int, wave: int, bucket: str, keys: list[str], all_keys: list[str]
) -> list[Any]:
    """The payloads for a wave of new bundles: notifications, repeated ones, and backfills."""
    dice = random.Random(f"wave {seed} {wave}")
    named = [*keys, *dice.sample(keys, len(keys) // 2)]
    named += dice.sample(all_keys, min(4, len(all_keys)))
    dice.shuffle(named)
    payloads: list[Any] = [notification(bucket, key) for key in named]
    section = {"mode": "bulk", "section_id": dice.choice(SECTIONS)}
    payloads.insert(dice.randrange(len(payloads)), section)
    if dice.random() < 0.3:
        payloads.append({**section, "force_reprocess": True})
    return payloads


class Verdict(NamedTuple):
    """How many statements are lost, doubled or unexpected, how many rejected lines are missing,
    unexpected or doubled, and how many ledger rows are wrong. All must be 0.
    """

    lost: int
    doubled: int
    unexpected: int
    rejected_wrong: int
    ledger_wrong: int


def judged(
    ask: Callable[[str], list[tuple[Any, ...]]],
    bucket: str,
    bundles: list[PlannedBundle],
    etags: dict[str, str],
) -> Verdict:
    """Compare what readers of a server see of these bundles with what was planned."""
    rows = Counter(i for (i,) in ask(f"SELECT event_id FROM {DATABASE}.video_events FINAL"))
    rejected = Counter(
        ask(f"SELECT source_file, source_line FROM {DATABASE}.rejected_statements FINAL")
    )
    ledger = {
        (key, etag): tuple(counts)
        for key, etag, *counts in ask(
            "SELECT key, etag, lines, video, other, blank, rejected"
            f" FROM {DATABASE}.processed_files FINAL"
        )
    }
    wanted = {statement for made in bundles for statement in made.video}
    lines = {(f"s3://{bucket}/{made.key}", line) for made in bundles for line in made.rejected}
    objects = {(made.key, etags[made.key]): made.counts for made in bundles}
    return Verdict(
        lost=len(wanted - rows.keys()),
        doubled=sum(1 for seen in rows.values() if seen > 1),
        unexpected=len(rows.keys() - wanted),
        rejected_wrong=len(lines ^ rejected.keys()) + sum(1 for n in rejected.values() if n > 1),
        ledger_wrong=sum(
            1 for name in objects.keys() | ledger.keys() if objects.get(name) != ledger.get(name)
        ),
    )
