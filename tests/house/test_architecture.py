"""The layout is as docs/architecture.md draws it: imports run one way, and modules stay small."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.faults import TOP_ROOMS

ROOT = Path(__file__).parents[2]
MODULES = [*ROOT.glob("xapi_etl_processor/**/*.py"), *ROOT.glob("local/*.py")]
MODULES += [*ROOT.glob("deployment/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("*.py")]


@pytest.mark.slow
def test_imports_run_one_way_and_the_xapi_package_is_pure() -> None:
    linter = str(Path(sys.executable).parent / "lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Contracts: 3 kept, 0 broken." in done.stdout


def length(module: Path) -> int:
    return len(module.read_text().splitlines())


def test_no_module_is_longer_than_400_lines_and_no_test_module_than_500() -> None:
    assert len(MODULES) > 40
    assert [module.name for module in MODULES if length(module) > 400] == []
    assert [module.name for module in ROOT.glob("tests/**/*.py") if length(module) > 500] == []


def test_each_room_of_the_package_has_tests() -> None:
    """Those with which `make mutants` begins."""
    rooms = [room.parent.name for room in (ROOT / "xapi_etl_processor").glob("*/__init__.py")]
    assert len(rooms) > 10
    for room in (*rooms, *TOP_ROOMS):
        assert list((ROOT / "tests" / room).glob("test_*.py")), room


def test_the_page_names_each_module_in_the_row_of_its_room() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    rows = {room: row for row in page.splitlines() for room in re.findall(r"^\| `(\w+)/`", row)}
    for module in MODULES:
        room, name = module.parent.name, module.stem
        if room in rows and name != "__init__" and room != "commands":
            assert f"`{name}`" in rows[room], module
