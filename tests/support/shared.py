"""Files that take long to make: made once for all processes of a test run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A folder of this name that all processes of the test run use."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def made_once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """The file or folder of this name; the first process that needs it makes it."""
    path = folder / name
    with locked(path):
        if not path.exists():
            unfinished = folder / f"unfinished-{name}"
            make(unfinished)
            unfinished.rename(path)
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time gets past this, for each path."""
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
