"""How many requests and seconds it takes to find one week of history among the keys of a year.

python -m benchmarks.listing [--write]

A server takes the place of S3. It makes up its answers and waits as long as S3 would: sections with
a year of keys in two categories, one for each hour. There are no bodies. --write puts the table
into docs/operations.md.
"""

from __future__ import annotations

import os
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from benchmarks import markdown
from docs.reference import with_tables
from local.aws import environment, without_real_services
from xapi_etl_processor.s3.client import Stores
from xapi_etl_processor.s3.listing import PAGE_KEYS, Progress, Scope, listing

PAGE = Path(__file__).parents[1] / "docs/operations.md"
COMMAND = "python -m benchmarks.listing --write"
SECTIONS = (1, 100, 1000)
ALL_OF = 100
"""Of a bucket with so many, all sections are listed too."""
CATEGORIES = ("quiz", "video")
HOURS = 365 * 24
WEEK = ("2025-06-02", "2025-06-08")
LATENCY_SECONDS = 0.05
"""How long S3 takes to answer a request for a list, at least."""

_FIRST = datetime(2025, 1, 1, tzinfo=UTC)
_TIMES = [f"{_FIRST + timedelta(hours=hour):%Y-%m-%dT%H-%M-%SZ}" for hour in range(HOURS)]
_BUCKET = "bundles"


@dataclass(frozen=True)
class Keys:
    """The keys of a bucket, made up when they are asked for; in order."""

    sections: int

    def __len__(self) -> int:
        return self.sections * len(CATEGORIES) * HOURS

    def __getitem__(self, number: int) -> str:
        section, rest = divmod(number, len(CATEGORIES) * HOURS)
        category, hour = divmod(rest, HOURS)
        when = _FIRST + timedelta(hours=hour)
        return (
            f"section/{10_000 + section}/{CATEGORIES[category]}/{when:%Y-%m-%dT%H-%M-%SZ}_1.jsonl"
        )


class Answer(NamedTuple):
    """A page of a listing."""

    keys: list[str]
    groups: list[str]
    next_start: int | None


def answer(keys: Keys, prefix: str, start: int, delimiter: str) -> Answer:
    """What S3 answers from the key with the number `start` on."""
    found = Answer([], [], None)
    while start < len(keys) and (key := keys[start]).startswith(prefix):
        if len(found.keys) + len(found.groups) == PAGE_KEYS:
            return found._replace(next_start=start)
        name, cut, _ = key.removeprefix(prefix).partition(delimiter) if delimiter else (key, "", "")
        if cut:
            group = f"{prefix}{name}{delimiter}"
            found.groups.append(group)
            start = bisect_left(keys, f"{group}\U0010ffff", start)
        else:
            found.keys.append(key)
            start += 1
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        keys, prefix = self.server.keys, query.get("prefix", "")
        start = max(bisect_left(keys, prefix), bisect_right(keys, query.get("start-after", "")))
        if "continuation-token" in query:
            start = int(query["continuation-token"])
        found = answer(keys, prefix, start, query.get("delimiter", ""))
        more = found.next_start is not None
        text = (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"<NextContinuationToken>{found.next_start or ''}</NextContinuationToken>"
            + "".join(
                f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>10000</Size>"
                "</Contents>"
                for key in found.keys
            )
            + "".join(
                f"<CommonPrefixes><Prefix>{g}</Prefix></CommonPrefixes>" for g in found.groups
            )
            + "</ListBucketResult>"
        ).encode()
        time.sleep(LATENCY_SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, keys: Keys) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = keys


@contextmanager
def serving(keys: Keys) -> Iterator[None]:
    """S3 with these keys, for this process."""
    with _Server(keys) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(without_real_services(before) | environment(server.server_port))
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            server.shutdown()


class Taken(NamedTuple):
    """What a listing found, and what that took."""

    keys: int
    requests: int
    seconds: float


def measure(scope: Scope) -> Taken:
    """List, and count."""
    progress = Progress()
    started = time.perf_counter()
    found = sum(1 for _ in listing(Stores(), scope, progress=progress))
    return Taken(found, progress.calls, time.perf_counter() - started)


def table() -> str:
    """Rows for one section and for all, in Markdown."""
    rows = []
    for sections in SECTIONS:
        keys = Keys(sections)
        with serving(keys):
            one = f"section/{10_000 + sections // 2}/"
            asked = {"one section": (Scope(_BUCKET, one, days=WEEK), len(Keys(1)))}
            if sections == ALL_OF:
                asked["all sections"] = Scope(_BUCKET, "section/", days=WEEK), len(keys)
            for name, (scope, every) in asked.items():
                took = measure(scope)
                of = f"{sections:,} section{'s' * (sections > 1)}, {len(keys):,} keys"
                rows.append(
                    (
                        of,
                        f"a week of {name}: {took.keys:,} keys",
                        f"{took.requests:,}",
                        f"{took.seconds:.2g}",
                        f"{-(-every // PAGE_KEYS):,}",
                    )
                )
    names = ("in the bucket", "asked for", "requests", "seconds", "requests for every key")
    return markdown.table(names, "rlrrr", rows)


def main() -> None:
    """Print the table, or write it."""
    found = table()
    if "--write" in sys.argv:
        page = with_tables(PAGE.read_text(encoding="utf-8"), {"listing": found}, COMMAND)
        PAGE.write_text(page, encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
