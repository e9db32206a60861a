"""The runner of make mutants: what counts as caught, and that it changes only copies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import copy, faults
from tests.mutants.__main__ import failing_without, summary
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


@pytest.mark.ci
def test_a_fault_without_end_and_one_of_an_import_are_caught(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "TEST_SECONDS", 1)
    endless = ONE.replace("return 1", "\n    while True: pass")
    assert Copy(tmp_path).caught_by(fault(endless)) == "test_one.py::test_one (after 1 s)"
    assert Copy(tmp_path).caught_by(fault("import nothing_of_that_name")) == "test_one.py"


@pytest.mark.ci
def test_nothing_is_tried_with_tests_that_fail_or_do_not_exist(
    project: Path, tmp_path: Path
) -> None:
    copied = Copy(tmp_path)
    assert failing_without([fault(ONE)], copied) is None
    (tmp_path / "code_of_ours.py").write_text(ONE.replace("1", "0"))
    assert failing_without([fault(ONE)], copied) == "test_one.py::test_one"
    missing = fault(ONE)._replace(tests=("test_two.py",))
    assert "file or directory not found: test_two.py" in str(failing_without([missing], copied))


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


@pytest.mark.ci
def test_ctrl_c_ends_it_with_a_summary_and_without_traces(tmp_path: Path) -> None:
    made = tmp_path / "generated.jsonl"
    file = "xapi_etl_processor/s3/objects.py"
    entry = {"file": file, "line": 1, "about": "nothing", "code": (ROOT / file).read_text()}
    made.write_text(json.dumps(entry))
    command = [sys.executable, "-m", "tests.mutants", str(made)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert "faults. First, their tests" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().startswith("stopped\n")
        assert process.wait(30) == 1
    assert list(tmp_path.iterdir()) == [made]
