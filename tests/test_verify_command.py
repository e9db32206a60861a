"""The command verify: a page for people, JSON for scripts, exit codes for both."""

from __future__ import annotations

import json
import sys

import pytest

from tests.conftest import Bucket
from tests.samples import video
from xapi_etl_processor.cli import main
from xapi_etl_processor.config import Settings
from xapi_etl_processor.telemetry import logger

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"


@pytest.fixture(autouse=True)
def _own_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger.handlers[0], "stream", sys.stderr)


def test_what_is_missing_is_named_with_what_to_do_and_repair_does_it(
    bucket: Bucket, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1))
    assert main(["verify"]) == 1
    shown = capsys.readouterr().out
    assert "1 are not all stored" in " ".join(shown.split())
    assert f"missing  {KEY}" in shown
    assert "the same command with --repair" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert main(["verify", "--repair", "--content"]) == 0
    assert "1 were not, and are loaded now" in capsys.readouterr().out
    assert main(["verify"]) == 0
    assert "nothing is missing" in " ".join(capsys.readouterr().out.split())


def test_json_is_the_functions_answer(
    bucket: Bucket, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket.put(KEY, video(1))
    assert main(["verify", "--json", "--section", "2001", "--min-age-minutes", "60"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["verify"], body["recent"], body["section_id"]) == (True, 1, 2001)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--start", "yesterday"], "start_date is 'yesterday'"),
        (["--replace"], "replace with verify needs"),
        (["--min-age-minutes", "-1"], "min_age_minutes is -1"),
    ],
)
def test_a_wrong_request_has_exit_code_2_and_one_line(
    settings: Settings, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["verify", *options]) == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err
