"""No fault and no check is left without a test, or a reason, and the page tells of all of them."""

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


def test_every_security_check_has_a_test_a_tool_or_a_step_for_people() -> None:
    tested = set(matrix.proofs("_checks"))
    assert list(matrix.CHECKS) == [f"S{n}" for n in range(1, 23)]
    assert tested | matrix.ELSEWHERE.keys() == matrix.CHECKS.keys()


def test_the_page_is_that_of_the_tests() -> None:
    assert matrix.rewritten(PAGE) == PAGE
    assert len(re.findall(r"^\| \d+ \| ", PAGE, re.M)) == len(matrix.FAULTS)


def test_what_is_said_to_be_done_elsewhere_is_done_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    checked = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    for said in matrix.ELSEWHERE.values():
        for tool in re.findall(r"`make check`: ([^;]+)", said):
            for name in tool.replace("'s security rules", "").split(", "):
                assert name in checked, said
        for step in re.findall(r"can prove, (\d)", said):
            steps = readme.partition("### What only your account can prove")[2].partition("##")[0]
            assert f"\n{step}. " in steps, said
