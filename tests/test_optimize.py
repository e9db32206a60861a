"""Merging the parts of months: what is merged, what is said, and what is refused."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from local.clickhouse_server import ClickHouseServer
from tests.conftest import Ask, Bucket, Invoke
from tests.reader import IDS, ROWS, ids
from tests.samples import video
from xapi_etl_processor import clickhouse_client
from xapi_etl_processor.cli import main
from xapi_etl_processor.clickhouse_client import ClickHouse
from xapi_etl_processor.config import Settings
from xapi_etl_processor.errors import BadRequest
from xapi_etl_processor.storage import merging
from xapi_etl_processor.storage.merging import Part, months_of, removed

pytestmark = pytest.mark.usefixtures("own_stream")

KEY = "section/1/video/2024-01-01T12-00-00Z_{}.jsonl"


@pytest.fixture
def loaded(bucket: Bucket, invoke: Invoke, ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    """In January three parts of four rows, three of them video(1); in February one part."""
    ask("SYSTEM STOP MERGES video_events")
    for number, more in enumerate(([video(2)], [video(3, timestamp="2024-02-01T12:00:00Z")], [])):
        invoke({"bucket": bucket.name, "key": bucket.put(KEY.format(number), video(1), *more)})
    capsys.readouterr()


def begin_merges_when_asked(
    server: ClickHouseServer, ask: Ask, then: Callable[[], object] = lambda: None
) -> list[str]:
    """Stopped merges go on once a merge is asked for, after `then`; gives what was asked for."""
    asked: list[str] = []

    def hook(point: str, sql: str) -> None:
        if point == "query" and sql.startswith("OPTIMIZE"):
            asked.append(sql)
            then()
            ask("SYSTEM START MERGES video_events")

    server.hook = hook
    return asked


def optimize(
    capsys: pytest.CaptureFixture[str], *options: str, code: int = 0
) -> tuple[dict[str, Any], str]:
    """The answer of the command, and what it says besides."""
    assert main(["optimize", *options]) == code
    shown = capsys.readouterr()
    return (json.loads(shown.out) if shown.out else {}), shown.err


def test_each_month_with_several_parts_is_merged_into_one_and_repeats_are_counted(
    loaded: None,
    capsys: pytest.CaptureFixture[str],
    ask: Ask,
    clickhouse: ClickHouseServer,
    settings: Settings,
) -> None:
    asked = begin_merges_when_asked(clickhouse, ask)
    found, said = optimize(capsys, "--month", "2024-01..2024-03")
    assert found["table"] == f"{settings.clickhouse_database}.video_events"
    assert (found["dry_run"], found["error"], said) == (False, None, "")
    january, february, march = found["months"]
    assert [one["month"] for one in found["months"]] == ["2024-01", "2024-02", "2024-03"]
    assert (january["before"]["parts"], january["before"]["rows"]) == (3, 4)
    assert (january["after"]["parts"], january["after"]["rows"]) == (1, 2)
    assert 0 < january["after"]["bytes"] < january["before"]["bytes"]
    assert january["repeats_removed"] == 2
    assert (february["before"], february["repeats_removed"]) == (february["after"], 0)
    assert march["after"] == {"parts": 0, "rows": 0, "bytes": 0}
    assert len(asked) == 1
    assert ask(IDS) == ids(range(1, 4))
    assert ask(ROWS) == [[3]]


def test_a_dry_run_shows_the_parts_and_merges_nothing(
    loaded: None, capsys: pytest.CaptureFixture[str], ask: Ask, clickhouse: ClickHouseServer
) -> None:
    asked = begin_merges_when_asked(clickhouse, ask)
    found, _ = optimize(capsys, "--month", "2024-01", "--dry-run")
    [january] = found["months"]
    assert (january["before"]["parts"], january["before"]["rows"]) == (3, 4)
    assert "after" not in january
    assert found["free_bytes"] > 0
    assert asked == []


def test_rows_that_arrive_meanwhile_make_the_number_of_repeats_unknown(
    loaded: None, capsys: pytest.CaptureFixture[str], ask: Ask, clickhouse: ClickHouseServer
) -> None:
    row = "INSERT INTO video_events (event_id, timestamp) VALUES ('a', '2024-01-05 00:00:00')"
    begin_merges_when_asked(clickhouse, ask, lambda: ask(row))
    found, _ = optimize(capsys, "--month", "2024-01")
    [january] = found["months"]
    assert january["after"]["rows"] == 3
    assert january["repeats_removed"] is None


def test_repeats_are_known_if_what_arrived_meanwhile_was_not_merged() -> None:
    before = [Part(1, 1, 10, 100), Part(2, 4, 20, 100)]
    assert removed(before, [Part(1, 4, 25, 100), Part(5, 5, 7, 100)]) == 5
    assert removed(before, [Part(1, 5, 32, 100)]) is None
    assert removed([], [Part(1, 1, 3, 100)]) == 0


def test_without_enough_free_space_nothing_is_begun(
    loaded: None,
    capsys: pytest.CaptureFixture[str],
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = begin_merges_when_asked(clickhouse, ask)
    monkeypatch.setattr(merging, "SPACE", 1e12)
    for more in ([], ["--dry-run"]):
        found, said = optimize(capsys, "--month", "2024-01", *more, code=1)
        assert re.search(r"2024-01 needs [0-9,]+ bytes of free space, and [0-9,]+ are free", said)
        assert found["error"] in said
    # February is one part, which needs none.
    optimize(capsys, "--month", "2024-02")
    assert asked == []


def test_free_space_that_may_not_be_seen_is_said_and_does_not_prevent_the_merge(
    loaded: None, capsys: pytest.CaptureFixture[str], ask: Ask, clickhouse: ClickHouseServer
) -> None:
    begin_merges_when_asked(clickhouse, ask)
    begin = clickhouse.hook

    def hook(point: str, sql: str) -> None:
        begin(point, sql)
        if "system.disks" in sql:
            raise RuntimeError("Code: 497. DB::Exception: Not enough privileges")

    clickhouse.hook = hook
    found, said = optimize(capsys, "--month", "2024-01")
    assert found["free_bytes"] is None
    assert "GRANT SELECT ON system.disks" in said
    assert found["months"][0]["after"]["parts"] == 1


def test_without_the_right_the_error_names_it(
    loaded: None, capsys: pytest.CaptureFixture[str], clickhouse: ClickHouseServer
) -> None:
    def hook(point: str, sql: str) -> None:
        if sql.startswith("OPTIMIZE"):
            raise RuntimeError("Code: 497. DB::Exception: Not enough privileges")

    clickhouse.hook = hook
    found, said = optimize(capsys, "--month", "2024-01", code=1)
    assert re.search(
        r"2024-01: .*GRANT OPTIMIZE ON test_\w+\.video_events TO loader$", said.strip()
    )
    assert "after" not in found["months"][0]


@pytest.mark.parametrize("asked_for", ["OPTIMIZE", "SELECT max(unreserved_space)"])
def test_another_error_names_no_privilege(
    loaded: None, capsys: pytest.CaptureFixture[str], clickhouse: ClickHouseServer, asked_for: str
) -> None:
    def hook(point: str, sql: str) -> None:
        if sql.startswith(asked_for):
            raise RuntimeError("Code: 164. DB::Exception: readonly")

    clickhouse.hook = hook
    _, said = optimize(capsys, "--month", "2024-01", code=1)
    assert "code 164" in said
    assert "GRANT" not in said


@pytest.mark.slow
def test_a_server_that_does_not_merge_is_asked_three_times_and_its_reason_is_given(
    loaded: None, capsys: pytest.CaptureFixture[str], clickhouse: ClickHouseServer
) -> None:
    """Its merges are stopped."""
    asked: list[str] = []
    clickhouse.hook = lambda point, sql: asked.extend([sql] * sql.startswith("OPTIMIZE"))
    found, said = optimize(capsys, "--month", "2024-01", code=1)
    assert "2024-01" in said
    assert re.search("ABORTED|CANNOT_ASSIGN_OPTIMIZE", found["error"])
    assert len(asked) == 3


def test_a_merge_whose_reply_was_lost_is_asked_for_again(
    loaded: None, capsys: pytest.CaptureFixture[str], ask: Ask, clickhouse: ClickHouseServer
) -> None:
    def lose_the_first() -> None:
        if len(asked) == 1:
            raise ConnectionAbortedError

    asked = begin_merges_when_asked(clickhouse, ask, lose_the_first)
    found, _ = optimize(capsys, "--month", "2024-01")
    assert len(asked) == 2
    assert found["months"][0]["after"]["parts"] == 1


@pytest.mark.slow
def test_a_server_that_is_silent_for_longer_than_a_reply_may_take_is_waited_for(
    loaded: None,
    capsys: pytest.CaptureFixture[str],
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first request is answered only after a second one was sent."""
    monkeypatch.setattr(clickhouse_client, "REPLY_SECONDS", 0.5)
    second = threading.Event()

    def hold_the_first() -> None:
        if len(asked) == 1:
            assert second.wait(30)
        second.set()

    asked = begin_merges_when_asked(clickhouse, ask, hold_the_first)
    found, _ = optimize(capsys, "--month", "2024-01")
    assert len(asked) == 2
    assert (found["months"][0]["after"]["parts"], found["error"]) == (1, None)


def test_ctrl_c_ends_the_waiting_and_says_that_the_server_goes_on(
    loaded: None,
    capsys: pytest.CaptureFixture[str],
    ask: Ask,
    clickhouse: ClickHouseServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = threading.Event()
    asked = threading.Event()

    def wait_for_ctrl_c() -> None:
        asked.set()
        assert stopped.wait(30)

    def interrupt(*_: object) -> None:
        assert asked.wait(30)
        raise KeyboardInterrupt

    begin_merges_when_asked(clickhouse, ask, wait_for_ctrl_c)
    monkeypatch.setattr(merging, "wait", interrupt)
    found, said = optimize(capsys, "--month", "2024-01", code=1)
    assert "the server goes on merging, see system.merges" in said
    assert "after" not in found["months"][0]
    stopped.set()
    january = "SELECT count() FROM system.parts WHERE active AND partition_id = '202401' AND"
    january += " database = currentDatabase() AND table = 'video_events'"
    end = time.monotonic() + 30
    while ask(january) != [[1]]:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_progress_is_that_of_the_months_merge(
    settings: Settings, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("SYSTEM STOP MERGES video_events")
    for part in range(2):
        ask(
            "INSERT INTO video_events (event_id, timestamp)"
            f" SELECT toString(number + {part}), '2024-01-05 00:00:00' FROM numbers(100000)"
        )
    ask("SYSTEM START MERGES video_events")
    monkeypatch.setattr(merging, "POLL_SECONDS", 0.001)
    seen: list[merging.Running] = []
    client = ClickHouse(settings)
    merging.merge(client, "video_events", "2024-01", seen.append)
    client.disconnect()
    assert seen
    assert {one.parts for one in seen} == {2}
    shares = [one.share for one in seen]
    assert 0 <= shares[0] <= shares[-1] <= 1
    assert seen[0].bytes > 100_000


@pytest.mark.parametrize(
    ("texts", "months"),
    [
        (["2024-02", "2024-01", "2024-02"], ["2024-01", "2024-02"]),
        (["2023-11..2024-02"], ["2023-11", "2023-12", "2024-01", "2024-02"]),
        (["2024-05..2024-05"], ["2024-05"]),
    ],
)
def test_months_are_named_one_by_one_or_as_a_range(texts: list[str], months: list[str]) -> None:
    assert months_of(texts) == months


@pytest.mark.parametrize(
    "text",
    ["2024-13", "2024-00", "2024-1", "202401", "2024-01-01", "", "..", "2024-01..", "..2024-01"]
    + ["2024-01..2024-02..2024-03", "٢٠٢٤-01"],
)
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="is not a month: write 2024-01, or 2024-01..2024-06"):
        months_of(["2024-01", text])


def test_a_bad_request_has_exit_code_2_and_one_line(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, why in (
        (["--month", "2024-02..2024-01"], "ends before it begins"),
        (["--month", "january"], "is not a month"),
        (["--month", "2024-01", "--table", "processed_files"], "with months: use video_events$"),
        (["--month", "2024-01", "--table", "no; DROP"], "is no table with months"),
    ):
        found, said = optimize(capsys, *options, code=2)
        assert found == {}
        [line] = said.splitlines()
        assert re.search(why, line)


def test_where_there_are_no_tables_it_says_so(
    unmigrated: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = optimize(capsys, "--month", "2024-01", code=2)
    assert "are the tables there? See `health`" in said
