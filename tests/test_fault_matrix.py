"""Every fault and every check has a test or a reason, and the page lists them all."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults import matrix

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_every_fault_has_a_test_or_a_reason_why_it_cannot_happen() -> None:
    tested = set(matrix.proofs("_faults"))
    assert list(matrix.FAULTS) == list(range(1, 67))
    assert tested | matrix.NOT_HERE.keys() == matrix.FAULTS.keys()
    assert not tested & matrix.NOT_HERE.keys()


def test_every_security_check_has_a_test_a_tool_or_a_manual_step() -> None:
    tested = set(matrix.proofs("_checks"))
    assert list(matrix.CHECKS) == [f"S{n}" for n in range(1, 23)]
    assert tested | matrix.ELSEWHERE.keys() == matrix.CHECKS.keys()


def test_the_page_is_up_to_date() -> None:
    assert matrix.rewritten(PAGE) == PAGE
    assert len(re.findall(r"^\| \d+ \| ", PAGE, re.M)) == len(matrix.FAULTS)


def test_tools_and_manual_steps_exist_where_the_table_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    operations = (ROOT / "docs" / "operations.md").read_text()
    steps = operations.partition("\n## What only your account can prove\n")[2].partition("\n## ")[0]
    checked = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    for place in matrix.ELSEWHERE.values():
        for tool in re.findall(r"`make check`: ([^;]+)", place):
            for name in tool.replace("'s security rules", "").split(", "):
                assert name in checked, place
        for step in re.findall(r"can prove, (\d)", place):
            assert f"\n{step}. " in steps, place
