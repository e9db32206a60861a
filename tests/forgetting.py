"""What tests of forgetting share: the command, statements of a learner, and what is stored."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Ask, Bucket, Invoke
from tests.samples import video
from xapi_etl_processor.cli import main

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
LATER = "section/2001/video/2024-01-02T12-00-00Z_2.jsonl"
PAGE = "https://lms.example.org"
MAIL = "learner@example.org"


def by_account(number: int, name: str = "learner-1", page: str = PAGE) -> dict[str, Any]:
    return video(number, actor={"account": {"name": name, "homePage": page}})


REJECTED = json.dumps({k: v for k, v in by_account(9).items() if k != "verb"}).encode()


class Forget:
    """The command line, with its answer."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *options: str, code: int = 0) -> Any:
        self._capsys.readouterr()  # the log of what was loaded before
        assert main(["forget", *options]) == code
        self.said = self._capsys.readouterr()
        if code or "--list-objects" in options:
            return self.said.out.splitlines()
        return json.loads(self.said.out)


def users(ask: Ask) -> list[str]:
    return [user for (user,) in ask("SELECT user_id FROM video_events FINAL ORDER BY ALL")]


def load(bucket: Bucket, invoke: Invoke, *lines: Any, key: str = KEY, **more: bool) -> Any:
    return invoke({"bucket": bucket.name, "key": bucket.put(key, *lines), **more})
