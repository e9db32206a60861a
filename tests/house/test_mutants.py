"""The runner of make mutants: what counts as caught, and that it changes only copies."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutants import copy, faults
from tests.mutants.__main__ import summary
from tests.mutants.copy import Copy
from tests.mutants.faults import ROOT, Fault

ONE = "def one() -> int:\n    return 1\n"
TEST = "from code_of_ours import one\n\ndef test_one() -> None:\n    assert one() > 0\n"


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one module and one test."""
    project = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    (project / "code_of_ours.py").write_text(ONE)
    (project / "test_one.py").write_text(TEST)
    monkeypatch.setattr(faults, "ROOT", project)
    monkeypatch.setattr(copy, "ROOT", project)
    return project


def fault(code: str) -> Fault:
    return Fault("code_of_ours.py", 2, "another code", code, ("test_one.py",))


@pytest.mark.ci
@pytest.mark.slow
def test_a_fault_is_caught_by_the_test_that_fails_and_leaves_nothing_behind(
    project: Path, tmp_path: Path
) -> None:
    copied = Copy(tmp_path)
    assert copied.caught_by(fault(ONE.replace("1", "0"))) == "test_one.py::test_one"
    assert (project / "code_of_ours.py").read_text() == ONE
    # Two runs of its tests, that of its room and all.
    assert copied.caught_by(fault(ONE.replace("1", "2"))) is None
    assert (tmp_path / "code_of_ours.py").read_text() == ONE


def test_the_summary_shows_what_survived_and_fails_for_it(project: Path) -> None:
    lived, died = fault(ONE.replace("1", "2")), fault(ONE.replace("1", "0"))
    text, good = summary({lived: None, died: "test_one.py::test_one"})
    assert "survived: code_of_ours.py:2 another code\n    -    return 1\n    +    return 2" in text
    assert text.endswith("2 tried, 50.0% caught, 1 survived")
    assert not good
    assert summary({died: "test_one.py::test_one"})[1]


def test_each_room_of_the_package_has_tests() -> None:
    rooms = [room.parent.name for room in (ROOT / "xapi_etl_processor").glob("*/__init__.py")]
    assert len(rooms) > 10
    for room in (*rooms, *faults.TOP_ROOMS):
        assert list((ROOT / "tests" / room).glob("test_*.py")), room
