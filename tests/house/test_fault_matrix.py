"""Every fault and every check has a test or a reason, and the page lists them all."""

from __future__ import annotations

from pathlib import Path

from tests.faults import matrix

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()


def test_every_fault_has_a_test_or_a_reason_why_it_cannot_happen() -> None:
    tested = set(matrix.proofs("fault"))
    assert list(matrix.FAULTS) == list(range(1, 79))
    assert tested | matrix.NOT_HERE.keys() == matrix.FAULTS.keys()
    assert not tested & matrix.NOT_HERE.keys()


def test_every_proof_of_a_fault_says_what_catches_it() -> None:
    for proofs in matrix.proofs("fault").values():
        assert [proof for proof in proofs if not proof.caught_by] == []


def test_make_test_runs_a_test_of_every_fault() -> None:
    found = matrix.proofs("fault")
    assert [row for row, proofs in found.items() if all(proof.only_ci for proof in proofs)] == []


def test_every_security_check_has_a_test_a_tool_or_a_manual_step() -> None:
    tested = set(matrix.proofs("check"))
    assert list(matrix.CHECKS) == [f"S{n}" for n in range(1, 23)]
    assert tested | matrix.ELSEWHERE.keys() == matrix.CHECKS.keys()


def test_the_page_is_up_to_date() -> None:
    assert matrix.rewritten(PAGE) == PAGE
    assert all(f"| {row} | {title} |" in PAGE for row, title in matrix.FAULTS.items())


def test_the_tests_of_a_fault_or_a_check_are_named_as_pytest_takes_them() -> None:
    assert matrix.tests_of("33") == [
        "tests/modes/test_delivery.py::test_an_abandoned_invocation_does_not_affect_the_next_one"
    ]
    assert matrix.tests_of("S11") == [
        "tests/privacy/test_privacy.py::test_a_key_cannot_forge_a_log_line"
    ]
