"""Old months are dropped, and whatever looks for their statements afterwards knows it."""

from __future__ import annotations

from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Answer, Ask, Bucket, Cli, Invoke
from tests.support.dirty import Dirty
from tests.support.refusals import refuse
from tests.support.samples import BAD_LINE, video

OLD = "section/2001/video/2022-11-10T12-00-00Z_1.jsonl"
ACROSS = "section/2001/video/2023-01-01T00-10-00Z_2.jsonl"
OFFLINE = "section/2002/video/2023-01-05T12-00-00Z_3.jsonl"
NEW = "section/2001/video/2023-02-01T12-00-00Z_4.jsonl"
DROP = ("drop-months", "--before", "2023-01")
UNTIMED = "section/2001/video/no-day.jsonl"


@pytest.fixture
def loaded(bucket: Bucket, invoke: Invoke) -> Bucket:
    """Statements of November 2022 to February 2023, and one without any time."""
    untimed = {k: v for k, v in video(9).items() if k != "timestamp"}
    by_key = {k: v for k, v in video(2).items() if k != "timestamp"}
    bucket.put(OLD, video(1, timestamp="2022-11-10T11:59:00Z"), by_key, BAD_LINE)
    bucket.put(
        ACROSS,
        video(3, timestamp="2022-12-31T23:59:59.999Z"),
        video(4, timestamp="2023-01-01T00:00:00Z"),
    )
    bucket.put(OFFLINE, video(5, timestamp="2022-12-20T12:00:00Z"))
    bucket.put(NEW, video(6, timestamp="2023-02-01T11:00:00Z"))
    bucket.put(UNTIMED, untimed)
    assert invoke({"mode": "bulk"})["success"]
    return bucket


@pytest.fixture
def drop(cli: Cli) -> Cli:
    """The command, before 2023, without asking."""
    return lambda *options, code=0: cli(*DROP, *(options or ["--yes"]), code=code)


def times(ask: Ask) -> list[str]:
    return [
        day
        for (day,) in ask("SELECT toString(toDate(timestamp)) FROM video_events FINAL ORDER BY 1")
    ]


def lose_rows_since(year: int, ask: Ask) -> None:
    where = f"timestamp > '{year}-01-01' SETTINGS mutations_sync = 2"
    ask(f"ALTER TABLE video_events DELETE WHERE {where}")


ALL_DAYS = [
    "1970-01-01",
    *["2022-11-10"] * 2,
    "2022-12-20",
    "2022-12-31",
    "2023-01-01",
    "2023-02-01",
]
KEPT_DAYS = ["1970-01-01", "2023-01-01", "2023-02-01"]


def verified(invoke: Invoke, **more: Any) -> tuple[Answer, dict[str, str]]:
    answer = invoke({"mode": "bulk", "verify": True, **more})
    return answer, {one["key"]: one["finding"] for one in answer["findings"]}


@pytest.mark.usefixtures("loaded")
def test_months_are_shown_and_dropped_and_the_second_time_nothing_is_left(
    drop: Cli, cli: Cli, ask: Ask
) -> None:
    shown = drop("--dry-run").json
    months = [(one["month"], one["rows"], one["sections"]) for one in shown["months"]]
    assert months == [("2022-11", 2, 1), ("2022-12", 2, 2)]
    assert all(one["bytes"] > 0 for one in shown["months"])
    assert "cannot be undone: look with --dry-run, then add --yes" in cli(*DROP, code=2).err
    assert times(ask) == ALL_DAYS
    assert drop().json["months"] == shown["months"]
    assert times(ask) == KEPT_DAYS
    again = drop()
    assert again.json["months"] == []
    assert "no month before 2023-01 has statements" in again.err
    assert times(ask) == KEPT_DAYS


@pytest.mark.usefixtures("loaded")
def test_a_verification_calls_them_dropped_and_still_finds_what_is_missing(
    drop: Cli, ask: Ask, invoke: Invoke
) -> None:
    drop()
    # ACROSS has one of two rows, which numbers alone do not explain. OFFLINE has none, and is read.
    answer, findings = verified(invoke)
    assert (answer["success"], answer["dropped"], findings) == (True, 2, {ACROSS: "unproven"})
    answer, findings = verified(invoke, content=True, repair=True)
    assert (answer["success"], answer["dropped"], answer["repaired"]) == (True, 3, 0)
    assert findings == {}
    assert times(ask) == KEPT_DAYS
    lose_rows_since(2023, ask)
    answer, findings = verified(invoke, content=True)
    assert (answer["success"], findings) == (False, {NEW: "differing"})
    lose_rows_since(2022, ask)
    answer, findings = verified(invoke)
    assert (answer["dropped"], findings) == (2, {ACROSS: "differing", NEW: "differing"})
    assert answer["lines_missing"] == 2


@pytest.mark.usefixtures("loaded")
def test_loading_brings_them_back_by_force_only_and_says_so(
    drop: Cli, cli: Cli, ask: Ask, invoke: Invoke
) -> None:
    drop()
    assert "dropped_months" not in invoke({"mode": "bulk"}).body
    assert times(ask) == KEPT_DAYS
    again = invoke({"mode": "bulk", "force_reprocess": True, "dry_run": True})
    assert again["dropped_months"] == ["2022-11"]
    said = "dropped once: 2022-11; drop-months drops what is loaded again"
    assert said in cli("bulk", "--force").err
    assert times(ask) == ALL_DAYS
    answer, findings = verified(invoke, content=True)
    assert (answer["success"], answer["dropped"], findings) == (True, 0, {})
    # What is lost after it was loaded again is missing, and not dropped.
    lose_rows_since(2022, ask)
    answer, findings = verified(invoke)
    assert (answer["success"], findings) == (
        False,
        dict.fromkeys((OLD, ACROSS, OFFLINE, NEW), "differing"),
    )


@pytest.mark.usefixtures("loaded")
def test_a_late_object_of_a_dropped_month_is_loaded_and_named(
    drop: Cli, ask: Ask, invoke: Invoke, loaded: Bucket
) -> None:
    drop()
    late = OLD.replace("_1", "_late")
    loaded.put(late, video(20, timestamp="2022-11-10T11:59:00Z"))
    answer, findings = verified(invoke)
    assert (answer["success"], findings[late]) == (False, "missing")
    assert invoke({"mode": "bulk"})["dropped_months"] == ["2022-11"]
    answer, findings = verified(invoke)
    assert (answer["success"], answer["dropped"], late in findings) == (True, 2, False)
    assert [one["month"] for one in drop().json["months"]] == ["2022-11"]
    assert times(ask) == KEPT_DAYS


@pytest.mark.usefixtures("loaded")
def test_a_drop_that_fails_in_between_is_finished_by_the_next(
    drop: Cli, ask: Ask, invoke: Invoke, clickhouse: ClickHouseServer
) -> None:
    refuse(clickhouse, 359, "DROP PARTITION ID '202212'", text="is greater than max")
    said = drop(code=1).err
    assert "raise the server's max_partition_size_to_drop" in said
    clickhouse.hook = lambda *_: None
    assert times(ask) == [ALL_DAYS[0], *ALL_DAYS[3:]]
    # Until it is finished, nothing is called dropped.
    answer, findings = verified(invoke, content=True)
    assert (answer["success"], answer["dropped"], findings) == (False, 0, {OLD: "differing"})
    assert [one["month"] for one in drop().json["months"]] == ["2022-12"]
    assert times(ask) == KEPT_DAYS
    answer, findings = verified(invoke, content=True)
    assert (answer["success"], answer["dropped"], findings) == (True, 3, {})


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("2023", "--before is '2023': a month such as 2023-01 is needed"),
        ("2023-13", "--before is '2023-13'"),
        ("9999-01", "is in the future: all statements would be dropped"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_a_month_that_is_none_or_in_the_future_is_refused(before: str, said: str, cli: Cli) -> None:
    assert said in cli("drop-months", "--before", before, "--yes", code=2).err


def test_repeats_and_versions_are_counted_as_rows(on_dirty: Dirty, cli: Cli) -> None:
    """As they are on disk: 50 rows, of which two have no time."""
    shown = cli("drop-months", "--before", "2024-04", "--dry-run").json["months"]
    months = [(one["month"], one["rows"], one["sections"]) for one in shown]
    assert months == [("2019-05", 1, 1), ("2024-01", 2, 1), ("2024-03", 45, 1)]
