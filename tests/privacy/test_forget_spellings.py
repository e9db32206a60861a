"""A learner is forgotten in whatever way statements and broken lines spell the id."""

from __future__ import annotations

import json
from hashlib import sha1
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Cli
from tests.privacy.conftest import (
    KEY,
    LATER,
    MAIL,
    PAGE,
    REJECTED,
    Load,
    by_account,
    users,
)
from tests.support.samples import BAD_LINE, other, video
from xapi_etl_processor.storage.ledger import MAX_REJECTED_BYTES

pytestmark = pytest.mark.slow


@pytest.mark.ci
def test_rejected_lines_are_found_however_they_spell_the_name(
    load: Load, ask: Ask, forget: Cli
) -> None:
    """The first name is a number, as some platforms write it."""
    names = ["12345", 'a "b" \\', "it's 100%", "Ana\tO'Neill, \u0160", " 1"]
    lines = []
    for name in names:
        written = json.loads(REJECTED)
        written["actor"]["account"]["name"] = int(name) if name.isdigit() else name
        compact = json.dumps(written, ensure_ascii=False, separators=(",", ":"))
        lines += [json.dumps(written).encode(), compact.encode()]
    load(*lines, BAD_LINE, video(2))
    for name in names:
        assert forget("--user", name).json["rejected_lines_removed"] == 2, name
    load(*lines, video(2), key=LATER)
    texts = ask("SELECT line FROM rejected_statements ORDER BY source_file, source_line")
    assert texts == [[""]] * 10 + [[BAD_LINE.decode()]] + [[""]] * 10


def test_rejected_lines_in_utf_16_are_not_kept(load: Load, ask: Ask) -> None:
    """They have a zero byte for each character of ASCII; a name of others cannot be found there."""
    named = REJECTED.decode().replace("learner-1", "Zoë 王")
    load(*(named.encode(coding) for coding in ("utf-16", "utf-16-le", "utf-16-be")), video(2))
    assert ask("SELECT source_line, line FROM rejected_statements ORDER BY 1") == [
        [number, ""] for number in (1, 2, 3)
    ]


def test_a_name_that_is_cut_off_at_the_longest_line_is_not_kept_in_part(
    load: Load, ask: Ask, forget: Cli
) -> None:
    forget("--user", "learner-1")
    before = b'{"actor": {"account": {"name": "'
    line = (
        b" " * (MAX_REJECTED_BYTES - len(before) - 5) + before + b'learner-1", "homePage": "x"}}}'
    )
    load(b'"' + line, video(2))
    assert ask("SELECT line FROM rejected_statements") == [[""]]


def test_capitals_make_no_difference_in_mail_addresses_and_hashes(
    load: Load, bucket: Bucket, ask: Ask, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", bucket.name)
    # xAPI 1.0.3, part 2, section 2.4.2.3
    hashed = sha1(f"mailto:{MAIL}".encode(), usedforsecurity=False).hexdigest()
    lines: list[Any] = [
        video(1, actor={"mbox": "mailto:LEARNER@example.org"}),
        video(2, actor={"mbox": f"MAILTO:{MAIL}"}),
        video(3, actor={"mbox_sha1sum": hashed.upper()}),
        REJECTED.replace(b"learner-1", b"mailto:Learner@example.org"),
        by_account(4, "LEARNER-1"),
    ]
    load(*lines)
    for given, *options in (MAIL, "--dry-run"), ("Learner@Example.org",):
        assert forget("--mbox", given, "--list-objects").out.splitlines() == [bucket.uri(KEY)]
        answer = forget("--mbox", given, *options).json
        assert (answer["rows_removed"], answer["rejected_lines_removed"]) == (3, 1), given
    forget("--user", "learner-1")
    assert load(*lines, key=LATER)["forgotten_events"] == 3
    assert users(ask) == ["LEARNER-1"]
    assert ask("SELECT DISTINCT line FROM rejected_statements") == [[""]]


def test_objects_are_listed_in_which_the_learner_is_a_member_or_has_an_account_too(
    bucket: Bucket, forget: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_XAPI_BUCKET_NAME", bucket.name)
    learner, another = {"mbox": f"mailto:{MAIL}"}, {"mbox": "mailto:another@example.org"}
    with_page = {"name": "learner-1", "homePage": PAGE}
    actors = [
        {"objectType": "Group", "member": [another, learner]},
        {**learner, "account": with_page},
        {"objectType": "Group", "member": [another]},
        another,
        {"objectType": "Group", "member": [another, {"account": with_page}]},
    ]
    for number, actor in enumerate(actors):
        bucket.put(f"section/1/video/{number}.jsonl", {**other(number), "actor": actor})
    account = ("--user", "learner-1", "--home-page")
    for who, numbers in (
        (("--mbox", MAIL), (0, 1)),
        ((*account, PAGE), (1, 4)),
        ((*account, "https://other.example.org"), ()),
    ):
        found = forget(*who, "--list-objects").out.splitlines()
        assert found == [bucket.uri(f"section/1/video/{number}.jsonl") for number in numbers]


def test_an_address_is_found_wherever_it_stands(load: Load, ask: Ask, forget: Cli) -> None:
    """Without `mailto:`, as the name of an account, and hashed in two ways."""
    lines = [
        video(1, actor={"mbox": MAIL}),
        video(2, actor={"mbox": "Learner@Example.org"}),
        by_account(3, MAIL),
        video(4, actor={"mbox_sha1sum": sha1(MAIL.encode(), usedforsecurity=False).hexdigest()}),
        video(5, actor={"mbox": f"mailto:{MAIL}"}),
        video(6),
    ]
    load(*lines)
    # Again, so that there are repeats: each statement counts once.
    load(*lines, force_reprocess=True)
    for given in (MAIL, f"mailto:{MAIL}", "LEARNER@example.org"):
        counted = forget("--mbox", given, "--dry-run").json
        assert counted["rows_removed"] == 5
        assert {MAIL, "Learner@Example.org", f"mailto:{MAIL}"} < set(counted["user_ids"])
        assert len(counted["user_ids"]) == 4
    assert forget("--mbox", MAIL).json["rows_removed"] == 5
    assert load(*lines, key=LATER)["forgotten_events"] == 5
    assert users(ask) == ["viewer-6"]
