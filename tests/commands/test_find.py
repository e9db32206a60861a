"""The command find: each thing that can have become of a statement, and what is said of it."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Cli, forget_connections
from tests.support.dirty import AGAIN, ALL, GUS, HOSTILE_KEY, LATE, VERSIONS, VOIDING, Dirty
from tests.support.samples import content, event_id, other, video
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.commands import find as command
from xapi_etl_processor.explain import find as finding
from xapi_etl_processor.xapi.identity import line_id

Find = Callable[..., tuple[list[tuple[str, str, int, str]], str]]
FIRST = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
SECOND = "section/2002/video/2024-01-02T12-00-00Z_2.jsonl"
HEX = "FD41C918B88B4B20A0A5A4C32391AAA0"
CANONICAL = "fd41c918-b88b-4b20-a0a5-a4c32391aaa0"
SPELLINGS = (CANONICAL, CANONICAL.upper(), HEX, f"{{{HEX}}}", f"urn:uuid:{CANONICAL}", f" {HEX} ")


@pytest.fixture
def find(cli: Cli) -> Find:
    """Run the command: what it found (cause, object, line, words), and all that it printed."""

    def find(wanted: str, *options: str, code: int = 0) -> Any:
        out, err = cli("find", wanted, *options, code=code)
        # Neither a statement nor a person is shown.
        assert not re.search(r"viewer-|\b(eve|gus|fay|actor)\b", out + err)
        places = re.findall(r"^(\w.{10})(\S+) line (\d+)\n {11}(.+)$", out, re.MULTILINE)
        return [(cause.strip(), uri, int(n), words) for cause, uri, n, words in places], out + err

    return find


@pytest.fixture
def load(bucket: Bucket, settings: Settings, cli: Cli) -> Cli:
    """Load objects of the bucket."""
    return lambda *keys: cli("event", *map(bucket.uri, keys))


@pytest.fixture
def no_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tables settle is not looked for in S3."""
    monkeypatch.setattr(finding, "read", None)


@pytest.mark.usefixtures("no_s3")
def test_a_stored_statement_is_each_of_its_rows_and_the_one_that_counts_comes_first(
    on_dirty: Dirty, find: Find
) -> None:
    (first, *copies), _ = find(event_id(900))
    # Three objects have it; the one that was modified last counts.
    assert first[:3] == ("stored", on_dirty.uri(ALL), 19)
    assert first[3] == (
        "section 2001, 2024-03-02 09:00:00.000 UTC, completed; the view video_statements shows it"
    )
    assert {one[:3] for one in copies} == {
        ("stored", on_dirty.uri(AGAIN), 1),
        ("stored", on_dirty.uri(LATE), 1),
    }
    assert all(one[3].endswith("; a copy: another row of it counts") for one in copies)
    # It is only in the first version of its object, which S3 no longer has.
    [gus], _ = find(GUS[0]["id"])
    assert gus[:3] == ("stored", on_dirty.uri(VERSIONS), 1)
    [hostile], _ = find(event_id(902), "--section", "1")
    assert hostile[1] == on_dirty.uri(HOSTILE_KEY)
    assert "1970-01-01 00:00:00.000 UTC" in hostile[3]


@pytest.mark.usefixtures("no_s3")
def test_a_voided_statement_is_left_out_and_what_voids_it_is_named(
    on_dirty: Dirty, find: Find
) -> None:
    voided_by = line_id(json.dumps(VOIDING).encode())
    (row, voiding), _ = find(event_id(901))
    assert row[:3] == ("stored", on_dirty.uri(ALL), 20)
    assert row[3].endswith("it is voided: the view video_statements leaves it out")
    assert voiding == (
        *("voided", on_dirty.uri(ALL), 21),
        f"by {voided_by}, 2024-03-02 09:30:00 UTC",
    )
    # The voiding statement has no id of its own.
    assert find(voided_by)[0] == [("no video", on_dirty.uri(ALL), 21, f"it voids {event_id(901)}")]


def test_the_options_narrow_the_tables_and_s3_alike(on_dirty: Dirty, find: Find) -> None:
    places, _ = find(event_id(900), "--start", "2024-03-02", "--end", "2024-03-02")
    assert {one[1] for one in places} == {on_dirty.uri(ALL), on_dirty.uri(AGAIN)}
    places, _ = find(event_id(900), "--section", "1", code=1)
    assert places == []
    assert find(event_id(900), "--prefix", "section/2001")[0] != []


def test_a_statement_that_is_not_about_a_video_is_found_by_its_line(
    on_dirty: Dirty, find: Find
) -> None:
    places, said = find(line_id(json.dumps(other(1)).encode()))
    assert [one[:3] for one in places] == [("no video", on_dirty.uri(ALL), 22)]
    assert "neither object type, verb nor category says" in places[0][3]
    assert f"not in the tables: searching s3://{on_dirty.bucket}/section/\n" in said
    assert f"searched: 8 bundles under s3://{on_dirty.bucket}/section/\n" in said
    assert "to load it" not in said


def test_an_id_is_found_in_any_spelling_before_and_after_its_object_is_loaded(
    bucket: Bucket, load: Cli, find: Find
) -> None:
    escaped = json.dumps(video(0, id=HEX)).replace("A0A5", "\\u00410A5").encode()
    bucket.put(FIRST, escaped, *(video(n, id=sent) for n, sent in enumerate(SPELLINGS)), video(9))
    bucket.put(SECOND, video(2, id=SPELLINGS[2]))
    for asked in SPELLINGS:
        places, said = find(asked)
        assert [one[:3] for one in places] == [
            *(("not loaded", bucket.uri(FIRST), n) for n in range(1, 8)),
            ("not loaded", bucket.uri(SECOND), 1),
        ]
        assert f"to load it: python -m xapi_etl_processor event {bucket.uri(SECOND)}\n" in said
    load(FIRST, SECOND)
    for asked in SPELLINGS:
        # The two objects are of two sections.
        assert {one[:2] for one in find(asked)[0]} == {
            ("stored", bucket.uri(FIRST)),
            ("stored", bucket.uri(SECOND)),
        }


def test_a_rejected_line_is_found_by_the_text_of_its_id(
    bucket: Bucket, load: Cli, find: Find, ask: Ask
) -> None:
    line = f'{{"id": "{HEX}", "actor": "viewer-7"'.encode()
    bucket.put(FIRST, video(1), line, video(2, about=HEX))
    why = "not JSON: Input data was truncated; the line has this id in its text"
    found = [("rejected", bucket.uri(FIRST), 2, why)]
    places, said = find(CANONICAL)
    assert places == found
    assert "to load it" in said
    load(FIRST)
    places, said = find(CANONICAL)
    assert places == found
    assert "searching" not in said
    # Where the table keeps no text of it, S3 has it.
    ask("ALTER TABLE rejected_statements UPDATE line = '' WHERE 1 SETTINGS mutations_sync = 2")
    places, said = find(CANONICAL)
    assert places == found
    assert "searching" in said
    # Another id has the same end.
    assert find(f"00000000-{CANONICAL[9:]}", code=1)[0] == []


def test_a_rejected_line_of_another_statement_that_mentions_it_does_not_end_the_search(
    bucket: Bucket, load: Cli, find: Find
) -> None:
    reference = {"objectType": "StatementRef", "id": CANONICAL}
    line = {"id": event_id(99), "object": reference}
    bucket.put(FIRST, video(1), json.dumps(line).encode())
    load(FIRST)
    bucket.put(SECOND, {**video(2), "id": CANONICAL})
    places, said = find(CANONICAL)
    assert places == [("not loaded", bucket.uri(SECOND), 1, "its object is not in the ledger")]
    assert "searching" in said


def test_of_a_forgotten_learner_it_is_said_that_loading_leaves_it_out(
    bucket: Bucket, load: Cli, find: Find, cli: Cli
) -> None:
    bucket.put(FIRST, video(7), video(8))
    load(FIRST)
    cli("forget", "--user", "viewer-7", "--yes")
    forget_connections()
    places, _ = find(event_id(7))
    why = "its learner was forgotten: loading leaves it out"
    assert places == [("forgotten", bucket.uri(FIRST), 1, why)]


def test_what_is_in_no_bundle_is_said_with_what_was_searched_and_what_could_not_be(
    bucket: Bucket, settings: Settings, find: Find
) -> None:
    bucket.put(FIRST, video(1))
    bucket.put(SECOND + ".gz", body=gzip.compress(content(video(2)))[:-9])
    bucket.put(FIRST.removesuffix("l"), video(9))
    _, said = find(event_id(9), code=1)
    where = f"s3://{bucket.name}/section/"
    assert f"not found: 2 bundles under {where}, of which 1 could not be read\n" in said
    assert f"{bucket.uri(SECOND)}.gz: gzip stream is cut short" in said
    assert "not searched, because not named .jsonl or .jsonl.gz: 1 object\n" in said
    _, said = find(event_id(9), "--section", "2001", code=1)
    assert f"not found: 1 bundle under {where}2001/\n" in said
    _, said = find(event_id(9), "--section", "2003", code=1)
    assert f"not found: 0 bundles under {where}2003/\n" in said
    assert "the ledger has no objects yet" in said


def test_a_row_that_was_deleted_and_one_of_another_object_are_told_apart(
    bucket: Bucket, load: Cli, find: Find, ask: Ask
) -> None:
    bucket.put(FIRST, video(1), video(2))
    bucket.put(SECOND.replace("2002", "2001"), video(1))
    load(FIRST, SECOND.replace("2002", "2001"))
    ask("OPTIMIZE TABLE video_events FINAL")
    [(_, counts, *_)] = find(event_id(1))[0]
    day = ("2024-01-01", "2024-01-02")[FIRST in counts]
    places, _ = find(event_id(1), "--start", day, "--end", day)
    assert [(one[0], one[3]) for one in places] == [
        ("stored", "as a row of another object, which has it too")
    ]
    ask("ALTER TABLE video_events DELETE WHERE source_line = 2 SETTINGS mutations_sync = 2")
    places, said = find(event_id(2))
    assert places[0][:3] == ("row gone", bucket.uri(FIRST), 2)
    assert f"event {bucket.uri(FIRST)} --force\n" in said


def test_the_voided_statement_itself_is_looked_for_where_only_the_voiding_one_is_loaded(
    bucket: Bucket, load: Cli, find: Find
) -> None:
    voiding = video(1, **{key: VOIDING[key] for key in ("verb", "object")})
    bucket.put(FIRST, voiding)
    bucket.put(SECOND, video(901))
    load(FIRST)
    places, said = find(event_id(901))
    assert [one[:2] for one in places] == [
        ("voided", bucket.uri(FIRST)),
        ("not loaded", bucket.uri(SECOND)),
    ]
    assert "no row of it is stored: searching" in said


def test_ids_that_are_no_uuids_and_files_loaded_from_disk_are_found(
    bucket: Bucket, settings: Settings, find: Find, cli: Cli, tmp_path: Any
) -> None:
    bucket.put(FIRST, video(1, id='Straße "7"/x'))
    for asked in ('straße "7"/x', ' STRAße "7"/X '):
        assert [one[0] for one in find(asked)[0]] == ["not loaded"]
    (tmp_path / "b.jsonl").write_bytes(content(video(5)))
    cli("event", str(tmp_path / "b.jsonl"))
    assert find(event_id(5))[0][0][1] == f"file://{tmp_path}/b.jsonl"


def test_ctrl_c_says_how_far_it_came_and_the_token_goes_on_behind_that(
    bucket: Bucket,
    settings: Settings,
    find: Find,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = [f"section/1/video/2024-01-01T12-00-0{n}Z_1.jsonl" for n in range(4)]
    bucket.put_each(*keys)

    def interrupted(*args: Any) -> Iterator[Any]:
        for nth, one in enumerate(finding.in_objects(*args)):
            if nth == 2:
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(command, "in_objects", interrupted)
        places, said = find(event_id(3), code=1)
    assert places == []
    assert "stopped: 2 bundles under" in said
    [token] = re.findall("--token (.+)", said)
    places, said = find(event_id(3), "--token", token)
    assert [one[:2] for one in places] == [("not loaded", bucket.uri(keys[3]))]
    assert "searched: 2 bundles under" in said


def test_what_would_steer_a_terminal_is_shown_as_an_escape(
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = finding.Place(finding.Cause.STORED, "s3://b/\x1b[2J.jsonl", 1, "section \x9b, played")
    command._show([place])
    assert capsys.readouterr().out == (
        "stored     s3://b/\\x1b[2J.jsonl line 1\n           section \\x9b, played\n"
    )


def test_a_wrong_request_is_refused(settings: Settings, cli: Cli) -> None:
    assert "it is empty: use a statement's id" in cli("find", " ", code=2).err
    assert "start_date is 'yesterday'" in cli("find", "x", "--start", "yesterday", code=2).err
