"""What is measured: each group of trials, and the rows that the table shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import clickhouse_http, cold_start, data, setting, worker
from benchmarks.rounds import Figure, Group, Row
from benchmarks.setting import LARGE, LATENCY_MS, MEMORY, OTHER, Setting

Case = Callable[[Setting], AbstractContextManager[Group]]
"""Prepares a group of trials, and ends what they needed."""

MICRO, MILLI = 1e6, 1e3
IMPORTER = "ClickHouse's importer"
AT_ONCE = 32
"""Threads of ClickHouse's importer in the slow network: as many as the objects that the function
fetches at the same time. The importer's own default is the number of processors, which is several
times as slow."""


def small_bundles(each: int) -> Case:
    """Bulk mode, with bundles of so many statements."""

    @contextmanager
    def group(place: Setting) -> Iterator[Group]:
        bucket, objects = f"each{each}", place.sizes.objects[each]
        keys = [
            path.relative_to(place.folder / bucket).as_posix()
            for path in sorted((place.folder / bucket).rglob("*.jsonl"))
        ]
        with (
            setting.loader(place.variables) as load,
            worker.running(place.variables) as clickhouse,
            worker.running(place.variables) as boto3,
        ):
            about = f"{objects:,} bundles of {each} statements"
            ours = Figure("loader", "cpu", MILLI / objects)
            yield Group(
                f"small-{each}",
                {
                    "loader": setting.loading(
                        load, setting.whole_bucket(bucket), objects * each, objects
                    ),
                    "clickhouse": partial(clickhouse, "import_s3", url=place.url(bucket)),
                    "boto3": partial(boto3, "get_objects", bucket=bucket, keys=keys),
                },
                (
                    Row(
                        f"small-{each}-clickhouse",
                        about,
                        "ms of processor a bundle",
                        ours,
                        Figure("clickhouse", "cpu", MILLI / objects),
                        f"{IMPORTER}, s3()",
                        most=0.9 if each == 10 else None,
                        most_ratio=0.4,
                    ),
                    Row(
                        f"small-{each}-boto3",
                        about,
                        "ms of processor a bundle",
                        ours,
                        Figure("boto3", "cpu", MILLI / objects),
                        "boto3 that only gets them",
                    ),
                ),
                place.sizes.rounds,
            )

    return group


@contextmanager
def slow_network(place: Setting) -> Iterator[Group]:
    """Bulk mode when each GET takes a while."""
    serial = len(list((place.folder / "serial").rglob("*.jsonl")))
    objects = place.sizes.slow_objects
    one_at_a_time = place.slow | {worker.S3_CONCURRENCY: "1"}
    url = f"{place.slow['AWS_ENDPOINT_URL']}/slow/section/*/video/*.jsonl"
    about = f"{objects:,} bundles of 10, {LATENCY_MS} ms added to each request"
    with (
        setting.loader(place.slow) as ahead,
        setting.loader(one_at_a_time) as single,
        worker.running(place.slow) as clickhouse,
    ):
        yield Group(
            "latency",
            {
                "ahead": setting.loading(
                    ahead, setting.whole_bucket("slow"), objects * 10, objects
                ),
                "single": setting.loading(
                    single, setting.whole_bucket("serial"), serial * 10, serial
                ),
                "clickhouse": partial(clickhouse, "import_s3", url=url, threads=AT_ONCE),
            },
            (
                Row(
                    "latency",
                    about,
                    "ms a bundle",
                    Figure("ahead", "wall", MILLI / objects),
                    Figure("single", "wall", MILLI / serial),
                    f"one object at a time, with {serial} bundles",
                    most_ratio=1 / 15,
                ),
                Row(
                    "latency-clickhouse",
                    about,
                    "ms a bundle",
                    Figure("ahead", "wall", MILLI / objects),
                    Figure("clickhouse", "wall", MILLI / objects),
                    f"{IMPORTER}, max_threads={AT_ONCE}",
                ),
            ),
            min(place.sizes.rounds, 3),
        )


@contextmanager
def large_object(place: Setting) -> Iterator[Group]:
    """One large object, beside other loaders and the steps that no loader can leave out."""
    count = place.sizes.statements
    path = str(place.path(LARGE))
    payload = setting.one_object(LARGE)
    with (
        setting.loader(place.variables) as load,
        worker.running(place.variables) as clickhouse,
        worker.running(place.variables) as plain,
    ):
        cpu = Figure("loader", "cpu", MICRO / count)
        wall = Figure("loader", "wall", MICRO / count)
        about = f"an object of {count:,} statements"
        unit, clock = "µs of processor a statement", "µs a statement"
        yield Group(
            "large",
            {
                "loader": setting.loading(load, payload, count),
                "clickhouse": partial(clickhouse, "import_file", path=path),
                "dry": setting.loading(load, payload | {"dry_run": True}, count),
                "other": setting.loading(load, setting.one_object(OTHER), count),
                "plain": partial(plain, "plain_loader", path=path),
                "stages": partial(plain, "stages", path=path),
            },
            (
                Row(
                    "large-plain",
                    about,
                    unit,
                    cpu,
                    Figure("plain", "cpu", MICRO / count),
                    "json.loads, tuples, INSERT",
                    most=14,
                ),
                Row(
                    "large-wall-cpu",
                    about,
                    clock,
                    wall,
                    cpu,
                    "its own processor time",
                    most_ratio=1.15,
                    compared=False,
                ),
                Row(
                    "large-clickhouse",
                    about,
                    clock,
                    wall,
                    Figure("clickhouse", "wall", MICRO / count),
                    f"{IMPORTER}, one thread, typed",
                    most_ratio=1 / 0.3,
                ),
                Row(
                    "large-decode",
                    about,
                    unit,
                    cpu,
                    Figure("stages", "decode", MICRO / count),
                    "decoding alone",
                    compared=False,  # it is our own code too: made faster, it would be a fault
                ),
                Row(
                    "large-split",
                    about,
                    unit,
                    cpu,
                    Figure("stages", "split", MICRO / count),
                    "splitting lines alone",
                    compared=False,
                ),
                Row(
                    "other",
                    "statements as long, not about a video",
                    unit,
                    Figure("other", "cpu", MICRO / count),
                    cpu,
                    "statements about a video",
                    most_ratio=1 / 3,
                ),
                *(
                    Row(f"stage-{name}", "", unit, Figure(trial, figure, MICRO / count))
                    for name, trial, figure in STAGES
                ),
            ),
            place.sizes.rounds,
        )


STAGES = (
    ("loader", "loader", "cpu"),
    ("dry", "dry", "cpu"),
    *(
        (name, "stages", name)
        for name in ("split", "decode", "verdict", "hash", "parse", "columns")
    ),
)
"""Rows of figures that no table shows as they are: the breakdown is made of them."""


@contextmanager
def event(place: Setting) -> Iterator[Group]:
    """One invocation for each bundle, as uploads cause them, in the slow network."""
    bundles = 20

    def invocations(load: worker.Ask) -> Mapping[str, float]:
        # Each a bundle of its own; one invocation alone is too short to be measured.
        taken = [
            setting.loading(load, setting.one_object("slow", f"{number:06}"), 10)()
            for number in range(bundles)
        ]
        return {name: sum(times[name] for times in taken) for name in ("wall", "cpu")}

    with setting.loader(place.slow) as load:
        yield Group(
            "event",
            {"event": partial(invocations, load)},
            (
                Row(
                    "event",
                    f"an invocation for each bundle of 10, {LATENCY_MS} ms added to each request",
                    "ms an invocation",
                    Figure("event", "wall", MILLI / bundles),
                    Figure("event", "cpu", MILLI / bundles),
                    "its own processor time",
                    compared=False,
                ),
            ),
            min(place.sizes.rounds, 3),
        )


@contextmanager
def cold(place: Setting) -> Iterator[Group]:
    """A new process that handles its first event."""
    yield Group(
        "cold-start",
        {
            "first": partial(cold_start.first_event, place.variables),
            "baseline": partial(cold_start.baseline, place.variables),
        },
        (_cold_row("cold-start", "a new process with its first event", 0.6),),
        place.sizes.cold_starts,
    )


@contextmanager
def cold_package(place: Setting) -> Iterator[Group]:
    """The same with the deployment package in Lambda's runtime, where nothing of it is compiled."""
    with cold_start.unpacked() as package:
        yield Group(
            "cold-package",
            {
                "first": partial(package.first_event, place.variables),
                "baseline": partial(package.baseline, place.variables),
            },
            (_cold_row("cold-package", "the deployment package with its first event", None),),
            place.sizes.cold_starts,
        )


def _cold_row(key: str, about: str, most_ratio: float | None) -> Row:
    return Row(
        key,
        about,
        "ms",
        Figure("first", "wall", MILLI),
        Figure("baseline", "wall", MILLI),
        "importing boto3, a client, clickhouse-driver",
        most_ratio=most_ratio,
    )


@contextmanager
def memory(place: Setting) -> Iterator[Group]:
    """Memory that loading takes above an idle process, for objects of several sizes."""

    def above_idle(megabytes: int) -> Mapping[str, float]:
        name = f"{megabytes:06}"
        statements = place.statements(place.folder / MEMORY / data.KEY.format(name))
        with setting.loader(place.variables) as load:
            idle = load("memory")["megabytes"]
            setting.loading(load, setting.one_object(MEMORY, name), statements)()
            return {"megabytes": load("memory")["megabytes"] - idle}

    least = place.sizes.megabytes[0]
    yield Group(
        "memory",
        {str(size): partial(above_idle, size) for size in place.sizes.megabytes},
        tuple(
            Row(
                f"memory-{size}",
                f"memory above idle, an object of {size:,} MB",
                "MB",
                Figure(str(size), "megabytes"),
                None if size == least else Figure(str(least), "megabytes"),
                "" if size == least else f"an object of {least} MB",
                most=64,
            )
            for size in place.sizes.megabytes
        ),
        1,
        warm_up=0,
    )


@contextmanager
def others(place: Setting) -> Iterator[Group]:
    """Tools that others wrote, with the smallest of the objects that memory is measured with."""
    path = place.folder / MEMORY / data.KEY.format(f"{place.sizes.megabytes[0]:06}")
    count = place.statements(path)
    payload = setting.one_object(MEMORY, f"{place.sizes.megabytes[0]:06}")
    with (
        setting.loader(place.variables) as load,
        clickhouse_http.serving(
            "CREATE DATABASE xapi",
            "CREATE TABLE xapi.xapi_events_all"
            " (event_id UUID, emission_time DateTime64(6), event String) ENGINE = Null",
        ) as port,
        TemporaryDirectory() as folder,
    ):
        arguments = {"ralph": (str(path), str(port)), "dlt": (str(path), folder)}
        trials = {
            tool: partial(setting.other_tool, tool, *arguments[tool])
            for tool in arguments
            if setting.has_tool(tool)
        }
        against = {"ralph": "Ralph's write path", "dlt": "dlt, before it sends anything"}
        yield Group(
            "others",
            {"loader": setting.loading(load, payload, count), **trials},
            tuple(
                Row(
                    f"other-{tool}",
                    f"an object of {count:,} statements",
                    "µs of processor a statement",
                    Figure("loader", "cpu", MICRO / count),
                    Figure(tool, "cpu", MICRO / count),
                    against[tool],
                    compared=False,
                )
                for tool in trials
            ),
            2,
        )


def groups(place: Setting) -> list[Case]:
    """The groups to measure, those that matter most to users first."""
    small = [small_bundles(each) for each in place.sizes.objects]
    if place.sizes is setting.FULL:
        return [*small, slow_network, event, large_object, memory, cold, cold_package]
    return [*small, slow_network, large_object, memory, cold]
