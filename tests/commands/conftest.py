"""What tests of the command bulk share: bundles, what it prints and keeps, and a backfill queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress as Bar

from tests.conftest import Bucket
from tests.support.samples import video
from tests.support.simulated_queue import SimulatedQueue, simulated_backfill
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


@pytest.fixture
def backfill(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> SimulatedQueue:
    """The backfill queue."""
    return simulated_backfill(settings, monkeypatch)


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error counts as a terminal, and bars are drawn whenever they change."""
    update = Bar.update

    def drawn(bar: Bar, task: Any, **more: Any) -> None:
        update(bar, task, refresh=True, **more)

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(Bar, "update", drawn)


def kept(tmp_path: Path) -> list[dict[str, Any]]:
    """What is kept of commands that are not finished."""
    return [json.loads(path.read_text()) for path in tmp_path.rglob("bulk-*.json")]
