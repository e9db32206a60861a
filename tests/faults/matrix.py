"""The faults and security checks that this project covers, and the tests that cover them.

    python -m tests.faults.matrix docs/reliability.md    write the tables between their markers
    python -m tests.faults.matrix 12                     print the tests of a fault or a check

A test joins a row with `@pytest.mark.fault(20, caught_by="...")` or `@pytest.mark.check("S3")`;
NOT_HERE says why a fault cannot happen here. tests/house/test_fault_matrix.py checks that
nothing is left out.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tests
from docs.reference import with_tables

FAULTS = {
    1: "The same S3 event is delivered twice, one after the other",
    2: "The same S3 event is delivered twice at the same time",
    3: "A key is overwritten, and its events arrive out of order",
    4: "An object is replaced while it is read",
    5: "Keys with spaces, plus signs, percent signs, accents",
    6: "S3's test event: bare, in SQS, in SNS inside SQS",
    7: "A message that is not JSON, has no records, is from another service or about a deletion",
    8: "One message of a batch fails",
    9: "One record of a message fails",
    10: "The format of the answer to an SQS batch",
    11: "A direct invocation fails",
    12: "Time runs out with objects left",
    13: "The process is killed at any point",
    14: "Lambda reports that no time is left",
    15: "A message becomes visible again while it is in progress",
    16: "A huge payload, a huge number of objects, a huge answer",
    17: "The object is gone",
    18: "Access to the object, or to its encryption key, is denied",
    19: "S3 throttles",
    20: "The body ends early",
    21: "The body stalls",
    22: "S3 hangs up while ClickHouse is slow",
    23: "ClickHouse is down, or its host name is unknown",
    24: "The connection is cut in the middle of the only block",
    25: "The connection is cut between two batches",
    26: "The acknowledgement of an insert is lost",
    27: "The batch size changes between two attempts",
    28: "A line in the middle of a batch is bad",
    29: "A value that a column cannot hold",
    30: "Booleans, NaN and empty text where numbers belong",
    31: "A connection is used again after an error",
    32: "A warm container's connection is dead, or swallows everything",
    33: "The previous invocation was abandoned half-way",
    34: "ClickHouse has too many parts",
    35: "One insert touches more than a hundred partitions",
    36: "ClickHouse refuses: the error code decides whether to retry",
    37: "ClickHouse does not know whether an insert succeeded",
    38: "The table has more, fewer, moved or different columns",
    39: "ClickHouse takes an insert for a repeat, though its rows are not stored",
    40: "An insert is repeated much later",
    41: "A statement is sent again in another month",
    42: "A materialized view on the table, and a repeated insert",
    43: "The ClickHouse user's profile asks for asynchronous inserts",
    44: "Forced reprocessing: after a delete, twice, killed half-way",
    45: "A dry run",
    46: "Listings: similar prefixes, thousands of keys, folder markers, archived objects",
    47: "Dates: bounds, time zones, leap days, nothing found",
    48: "A backfill overlaps live events",
    49: "A backfill takes longer than one invocation",
    50: "Line endings of every kind, at every edge of a chunk",
    51: "Unicode line separators inside text",
    52: "Byte order marks, other encodings, invalid UTF-8, surrogates, NUL",
    53: "JSON that only some parsers accept",
    54: "A line without an end",
    55: "Gzip: several members, truncated, padded, damaged, misnamed",
    56: "Zstandard, which is not supported",
    57: "A gzip bomb",
    58: "An object that is empty or has no video statements",
    59: "An object without a single statement",
    60: "A dead letter cannot be sent, or a failed message cannot be given back",
    61: "A dead letter is moved back to the queue",
    62: "The function triggers itself",
    63: "The password was rotated",
    64: "Time zones of process and server; milliseconds",
    65: "Too little memory",
    66: "The health check names each cause",
    67: "ClickHouse Cloud takes a minute to wake, and holds the connection meanwhile",
    68: "Tables on a cluster are not replicated",
    69: "A replica dies during an insert, and another one answers",
    70: "ClickHouse is away for twelve hours",
    71: "The role lacks the right to use the key that encrypts the objects",
    72: "An error code that we do not know",
    73: "A statement is voided, before or after it arrives",
    74: "A learner is forgotten before or while an object is loaded",
    75: "The sender of a backfill is stopped, or SQS refuses some of its messages",
    76: "A message has many objects, and one cannot be loaded or time runs out",
    77: "A store does not list keys in order",
    78: "ClickHouse's disk is full",
}

NOT_HERE: dict[int, str] = {}
"""Faults that cannot happen here, and why."""

CHECKS = {
    "S1": "The role allows what is used, and nothing else",
    "S2": "Only this account's bucket, and a topic or rule that is named, can send to the queue",
    "S3": "Only allowed buckets and folders are read, and only of the expected owner",
    "S4": "The password is in no log, answer, error or template",
    "S5": "NoEcho is not the password's only protection",
    "S6": "TLS: on by default, certificate verified, a warning without it",
    "S7": "No fallback to a host without TLS",
    "S8": "Names in SQL are identifiers; values are parameters or blocks",
    "S9": "The database user needs few rights",
    "S10": "No personal data in logs, answers, dead letters or errors",
    "S11": "A key cannot forge a log line",
    "S12": "Queues, logs and secrets: encryption and retention",
    "S13": "Everything has a limit",
    "S14": "Direct payloads are validated strictly",
    "S15": "Dependencies are pinned by hash, and have no known vulnerability",
    "S16": "The contents of the package",
    "S17": "The code that runs is the code that was built",
    "S18": "The template follows CloudFormation's rules",
    "S19": "Failures raise alarms",
    "S20": "Network access",
    "S21": "Static checks, warnings as errors, no secret in the git history",
    "S22": "Unexpected input: fuzzing",
}


def step(number: int) -> str:
    """A numbered step that only a person with an AWS account can take."""
    return f"[step {number}](operations.md#what-only-your-account-can-prove)"


ELSEWHERE: dict[str, tuple[str, ...]] = {
    "S7": ("no setting names a second host",),
    "S9": ("[rights](operations.md#deploy)", step(5)),
    "S15": ("`make audit`: pip-audit", step(7)),
    "S17": (step(6),),
    "S18": ("`make check`: cfn-lint, checkov",),
    "S20": ("[network](operations.md#network)", step(13)),
    "S21": ("`make check`: ruff's security rules", "pytest with warnings as errors"),
    "S22": ("`make fuzz`",),
}
"""Checks that tools or people make, besides the tests."""


class Proof(NamedTuple):
    """A test, by file and name, what catches the fault in it, and whether only CI runs it."""

    file: str
    name: str
    caught_by: str
    only_ci: bool


def proofs(mark: str) -> dict[Any, list[Proof]]:
    """The tests with `pytest.mark.fault` or `pytest.mark.check`, by row or check."""
    found: dict[Any, list[Proof]] = {}
    for file, function in _tests():
        # The mark nearest to the function comes first in the list.
        marks = getattr(function, "pytestmark", ())
        only_ci = any(one.name in {"ci", "drill"} for one in marks)
        for one in marks:
            for row in one.args if one.name == mark else ():
                proof = Proof(file, function.__name__, one.kwargs.get("caught_by", ""), only_ci)
                found.setdefault(row, []).append(proof)
    return found


def _tests() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in sorted(m.name for m in pkgutil.walk_packages(tests.__path__, "tests.")):
        if module.rpartition(".")[2].startswith("test_"):
            found = vars(importlib.import_module(module))
            for name, function in found.items():
                if name.startswith("test_") and callable(function):
                    yield module.replace(".", "/") + ".py", function


def faults_table() -> str:
    """Each fault with what catches it and the files of its tests, as Markdown."""
    found = proofs("fault")
    lines = ["| | fault | caught by | tests |\n|---|---|---|---|\n"]
    for row, title in FAULTS.items():
        tests_ = found.get(row, [])
        layers = dict.fromkeys(layer for p in tests_ for layer in p.caught_by.split("; "))
        caught_by = "; ".join(layers) or f"cannot happen here: {NOT_HERE[row]}"
        lines.append(f"| {row} | {title} | {caught_by} | {_files(tests_)} |\n")
    return "".join(lines)


def checks_table() -> str:
    """Each check with the files of its tests and what else proves it, as Markdown."""
    found = proofs("check")
    lines = ["| | check | proved by |\n|---|---|---|\n"]
    for name, title in CHECKS.items():
        named = ", ".join(filter(None, (_files(found.get(name, [])), *ELSEWHERE.get(name, ()))))
        lines.append(f"| {name} | {title} | {named} |\n")
    return "".join(lines)


def _files(tests_: list[Proof]) -> str:
    return ", ".join(
        f"[{Path(file).stem.removeprefix('test_')}](../{file})"
        for file in dict.fromkeys(proof.file for proof in tests_)
    )


def tests_of(row: str) -> list[str]:
    """The tests of a fault, such as "12", or of a check, such as "S3", as pytest names them."""
    found = proofs("check") if row in CHECKS else proofs("fault")
    return [f"{p.file}::{p.name}" for p in found.get(row if row in CHECKS else int(row), ())]


def rewritten(page: str) -> str:
    """The page with its generated tables up to date."""
    return with_tables(page, {"faults": faults_table(), "checks": checks_table()})


if __name__ == "__main__":
    if (file := Path(sys.argv[1])).suffix == ".md":
        file.write_text(rewritten(file.read_text()))
    else:
        print(*tests_of(sys.argv[1]), sep="\n")
