"""What is measured: each group of trials, and the rows that the table shows of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from benchmarks import data, setting, worker
from benchmarks.rounds import Group, Row, timed
from benchmarks.setting import LARGE, LATENCY_MS, MEMORY, OTHER, Setting, loading, one_object
from xapi_etl_processor.s3.client import CONCURRENCY

Case = Callable[[Setting], AbstractContextManager[Group]]
"""Prepares a group of trials, and ends what they needed."""

IMPORTER = "ClickHouse's importer"
EVENTS = 50
"""Invocations in a trial: one alone is too short to be measured."""

_LIBRARIES = """
import boto3
boto3.client("s3")
from clickhouse_driver import Client
"""


@contextmanager
def small_bundles(each: int, place: Setting) -> Iterator[Group]:
    """Bulk mode, with bundles of so many statements."""
    bucket, objects = f"each{each}", place.sizes.objects[each]
    url = setting.every_object(place.variables, bucket)
    keys = [data.KEY.format(number) for number in range(objects)]
    row = partial(
        Row,
        about=f"{objects:,} bundles of {each} statements",
        unit="ms of processor a bundle",
        ours="loader.cpu",
    )
    rows = (
        row(
            f"small-{each}-clickhouse",
            yardstick="clickhouse.cpu",
            against=f"{IMPORTER}, s3()",
            most=0.9 if each == 10 else None,
            most_ratio=0.4,
        ),
        row(f"small-{each}-boto3", yardstick="boto3.cpu", against="boto3 that only gets them"),
    )
    with (
        setting.loader(place.variables) as load,
        worker.running(place.variables) as clickhouse,
        worker.running(place.variables) as boto3,
    ):
        trials = {
            "loader": loading(load, setting.whole_bucket(bucket), objects * each, objects),
            "clickhouse": partial(clickhouse, "import_s3", url=url),
            "boto3": partial(boto3, "get_objects", bucket=bucket, keys=keys),
        }
        yield Group(f"small-{each}", trials, rows, place.sizes.rounds, objects)


@contextmanager
def slow_network(place: Setting) -> Iterator[Group]:
    """Bulk mode when each GET takes a while."""
    objects = place.sizes.slow_objects
    url = setting.every_object(place.slow, "slow")
    row = Row(
        "latency",
        f"{objects:,} bundles of 10, {LATENCY_MS} ms added to each request",
        "ms a bundle",
        "loader.wall",
        "clickhouse.wall",
        f"{IMPORTER}, max_threads={CONCURRENCY}",
    )
    # The importer's own default is the number of processors, which is several times as slow.
    with setting.loader(place.slow) as load, worker.running(place.slow) as clickhouse:
        trials = {
            "loader": loading(load, setting.whole_bucket("slow"), objects * 10, objects),
            "clickhouse": partial(clickhouse, "import_s3", url=url, threads=CONCURRENCY),
        }
        yield Group("latency", trials, (row,), min(place.sizes.rounds, 3), objects)


@contextmanager
def event(place: Setting) -> Iterator[Group]:
    """One invocation of a warm function for each bundle, as uploads cause them."""
    keys = [data.KEY.format(number) for number in range(EVENTS)]
    bundles = [place.folder / "each10" / key for key in keys]
    sent = [setting.notification(place.folder / "each10", path) for path in bundles]
    row = Row(
        "event-boto3",
        "an invocation for each bundle of 10",
        "ms of processor a bundle",
        "events.cpu",
        "boto3.cpu",
        "boto3 that only gets it",
        most=4,
        most_ratio=2,
    )
    with setting.loader(place.variables) as load, worker.running(place.variables) as boto3:

        def invocations() -> dict[str, float]:
            return {"cpu": sum(loading(load, one, 10)()["cpu"] for one in sent)}

        trials: dict[str, Callable[[], dict[str, float]]] = {
            "events": invocations,
            "boto3": partial(boto3, "get_objects", bucket="each10", keys=keys),
        }
        yield Group("event", trials, (row,), place.sizes.rounds, EVENTS)


@contextmanager
def large_object(place: Setting) -> Iterator[Group]:
    """One large object, beside other loaders."""
    count = place.sizes.statements
    path = str(place.folder / LARGE / data.KEY.format(0))
    payload = one_object(LARGE)
    unit = "µs of processor a statement"
    about = f"an object of {count:,} statements"
    plainly = "json.loads, tuples, INSERT"
    rows = (
        Row("large-plain", about, unit, "loader.cpu", "plain.cpu", plainly, most=14),
        Row(
            "large-clickhouse",
            about,
            "µs a statement",
            "loader.wall",
            "clickhouse.wall",
            f"{IMPORTER}, one thread, typed",
            most_ratio=1 / 0.3,
        ),
        Row(
            "other",
            "statements as long, not about a video",
            unit,
            "other.cpu",
            "loader.cpu",
            "statements about a video",
            most_ratio=1 / 3,
        ),
    )
    with (
        setting.loader(place.variables) as load,
        worker.running(place.variables) as clickhouse,
        worker.running(place.variables) as plain,
    ):
        trials = {
            "loader": loading(load, payload, count),
            "clickhouse": partial(clickhouse, "import_file", path=path),
            "other": loading(load, one_object(OTHER), count),
            "plain": partial(plain, "plain_loader", path=path),
        }
        yield Group("large", trials, rows, place.sizes.rounds, count)


@contextmanager
def memory(place: Setting) -> Iterator[Group]:
    """Memory that loading takes above an idle process, for objects of several sizes."""

    def above_idle(megabytes: int) -> dict[str, float]:
        with setting.loader(place.variables) as load:
            idle = load("memory")["megabytes"]
            payload = one_object(MEMORY, megabytes)
            loading(load, payload, megabytes * setting.STATEMENTS_A_MB)()
            return {"megabytes": load("memory")["megabytes"] - idle}

    least, *more = place.sizes.megabytes
    about = "memory above idle, an object of {:,} MB"
    rows = (
        Row(f"memory-{least}", about.format(least), "MB", f"{least}.megabytes", most=64),
        *(
            Row(
                f"memory-{size}",
                about.format(size),
                "MB",
                f"{size}.megabytes",
                f"{least}.megabytes",
                f"an object of {least} MB",
                most=64,
            )
            for size in more
        ),
    )
    trials = {str(size): partial(above_idle, size) for size in place.sizes.megabytes}
    yield Group("memory", trials, rows, 1, warm_up=0)


@contextmanager
def cold(place: Setting) -> Iterator[Group]:
    """A new process that handles its first event, beside one that only imports the libraries."""

    def first_event() -> None:
        with setting.loader(place.variables):
            pass

    command = [sys.executable, "-c", _LIBRARIES]
    libraries = partial(subprocess.run, command, env=place.variables, check=True)
    trials = {"first": partial(timed, first_event), "libraries": partial(timed, libraries)}
    row = Row(
        "cold-start",
        "a new process with its first event",
        "ms",
        "first.wall",
        "libraries.wall",
        "importing boto3, a client, clickhouse-driver",
        most_ratio=0.6,
    )
    yield Group("cold-start", trials, (row,), place.sizes.cold_starts)


def groups(place: Setting) -> list[Case]:
    """The groups to measure, those that matter most to users first."""
    small = [partial(small_bundles, each) for each in place.sizes.objects]
    return [*small, event, slow_network, large_object, memory, cold]
