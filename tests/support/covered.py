"""Which keys a bulk request covers, as a dry run names them."""

from __future__ import annotations

from typing import Any

from tests.conftest import Invoke


def found(invoke: Invoke, **request: Any) -> list[str]:
    """The keys that a request covers."""
    answer = invoke({**request, "dry_run": True})
    assert answer.status == 200, answer.body
    assert answer["files_found"] == len(answer["files"])
    return list(answer["files"])
