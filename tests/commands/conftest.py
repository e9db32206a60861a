"""What tests of the command bulk share: bundles, what it prints, and a backfill queue."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.conftest import Bucket
from tests.support.samples import video
from xapi_etl_processor.base.config import Settings

KEYS = [f"section/1/video/2024-01-01T12-00-{n:02}Z_1.jsonl" for n in range(8)]


class Console:
    """What a command has printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.err = ""

    def answer(self) -> dict[str, Any]:
        """The answer that was printed since the last call."""
        out, self.err = self._capsys.readouterr()
        found: dict[str, Any] = json.loads(out)
        return found

    def errors(self) -> str:
        """What was said since the last call, where no answer was printed."""
        out, self.err = self._capsys.readouterr()
        return self.err if not out else f"an answer: {out}"


@pytest.fixture
def console(capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(capsys)


@pytest.fixture
def bundles(bucket: Bucket, settings: Settings) -> Bucket:
    for number, key in enumerate(KEYS):
        bucket.put(key, video(number))
    return bucket
