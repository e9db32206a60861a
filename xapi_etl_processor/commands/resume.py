"""Saves the progress of an unfinished `bulk` in a file, so that it can be continued."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from xapi_etl_processor.bulk.request import BulkRequest
from xapi_etl_processor.commands.output import say


@dataclass
class Progress:
    """How far a request has come: the sums of the answers until now, and the token that continues
    after them.
    """

    token: str = ""
    answer: dict[str, Any] = field(default_factory=dict)


def file_of(request: BulkRequest, function: str | None) -> Path:
    """Where the progress of a request is saved: the same request has the same file.

    It is below XDG_STATE_HOME, by default ~/.local/state (XDG Base Directory Specification).
    """
    home = os.environ.get("XDG_STATE_HOME") or _home() / ".local/state"
    asked = json.dumps([request.scope, request.bucket, request.prefix, function], sort_keys=True)
    name = hashlib.sha256(asked.encode()).hexdigest()[:16]
    return Path(home) / "xapi-etl-processor" / f"bulk-{name}.json"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:
        # The user of a container may have no home folder, and then nothing can be saved.
        return Path(os.devnull)


def read(path: Path) -> Progress | None:
    """The saved progress; None if there is none. If it cannot be read, says so, and gives None."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Progress)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        say(f"the progress of an earlier run cannot be read: {path}: {error}")
        return None


def keep(path: Path, progress: Progress) -> None:
    """Save the progress; if that cannot be done, say so, and go on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # If the process is killed now, the old file is still there.
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        _say_once(
            f"the progress cannot be kept, so that --resume will begin anew: {error}: set"
            " XDG_STATE_HOME to a folder that can be written to"
        )


@cache
def _say_once(text: str) -> None:
    say(text)


def remove(path: Path) -> None:
    """Forget the progress of a request that is finished."""
    with suppress(OSError):
        path.unlink()
