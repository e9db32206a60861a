"""What `bulk` keeps of a request that is not finished, in a file, to continue it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xapi_etl_processor.commands.answers import say
from xapi_etl_processor.modes.bulk_request import BulkRequest


@dataclass
class Progress:
    """How far a request has come. `started` is in seconds since 1970; so many `objects` have been
    found; `answer` has the sums of the answers until now. Once `sent`, all that is left is to wait
    for the queue.
    """

    started: float
    token: str = ""
    objects: int = 0
    sent: bool = False
    answer: dict[str, Any] = field(default_factory=dict)


def file_of(request: BulkRequest, function: str | None) -> Path:
    """Where the progress of a request is kept: the same request has the same file.

    It is below XDG_STATE_HOME, by default ~/.local/state (XDG Base Directory Specification).
    """
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    asked = json.dumps([request.scope, request.bucket, request.prefix, function], sort_keys=True)
    name = hashlib.sha256(asked.encode()).hexdigest()[:16]
    return Path(home) / "xapi-etl-processor" / f"bulk-{name}.json"


def read(path: Path) -> Progress | None:
    """The progress that is kept; None if there is none, or it cannot be read."""
    try:
        return Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def keep(path: Path, progress: Progress) -> None:
    """Keep the progress; if that cannot be done, say so, and go on."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A process that is killed meanwhile leaves the old text.
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(progress)), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        say(f"the progress cannot be kept, so that --resume will begin anew: {error}")


def remove(path: Path) -> None:
    """Forget the progress of a request that is finished."""
    with suppress(OSError):
        path.unlink()
