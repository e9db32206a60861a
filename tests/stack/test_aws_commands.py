"""Every aws command that the pages and the stack name works with version 1 of the aws command too.

Version 2 is not on PyPI. What it takes and version 1 does not is what these tests find.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from awscli.clidriver import create_clidriver

from tests.house.test_docs import PAGES, blocks
from tests.support.account import ROOT
from tests.support.template import Stack

pytestmark = pytest.mark.slow

AS_BEFORE = "..."
"""In the pages, this stands for the options of an earlier command. It cannot be run like that."""


class Asked(Exception):
    """The command understood its options, and asks AWS."""


def commands(script: str, folder: Path) -> list[list[str]]:
    """The options of each aws command that a script runs, in a shell that has no other command."""
    (aws := folder / "aws").write_text(
        '#!/bin/sh\nprintf "%s\\037" "$@" >>"$LOG"\nprintf "\\036" >>"$LOG"\n'
    )
    aws.chmod(0o755)
    (log := folder / "log").write_text("")
    subprocess.run(
        ["/bin/bash", "-c", script],
        cwd=folder,
        env={"PATH": str(folder), "LOG": str(log)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return [one.split("\037")[:-1] for one in log.read_text().split("\036")[:-1]]


def is_understood(options: list[str]) -> bool:
    """Whether version 1 gets as far as building a request, whatever the values."""
    asked: list[str] = []

    def ask(event_name: str, **_: Any) -> None:
        asked.append(event_name)
        raise Asked

    driver = create_clidriver()
    driver.session.register("before-parameter-build", ask)
    # The tests' own standard input may be a terminal.
    given = [option.replace("/dev/stdin", os.devnull) for option in options]
    try:
        driver.main(given)
    except SystemExit:  # how argparse refuses an option
        return False
    return bool(asked)


@pytest.fixture(autouse=True)
def account(aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # the commands name files of the project


@pytest.mark.ci
def test_every_documented_command_is_one_of_version_1(tmp_path: Path) -> None:
    found = [
        options
        for page in PAGES.values()
        for block in blocks("sh", page)
        for options in commands(block, tmp_path)
        if AS_BEFORE not in options
    ]
    assert {"cloudformation", "lambda", "logs", "sqs"} <= {options[0] for options in found}
    assert [" ".join(options) for options in found if not is_understood(options)] == []


def test_the_next_step_of_a_stack_with_code_is_one_of_version_1(tmp_path: Path) -> None:
    step = Stack(CodeBucket="releases", CodeKey="xapi.zip").outputs()["NextStep"]
    (options,) = commands(step, tmp_path)
    assert options[:2] == ["lambda", "invoke"]
    assert is_understood(options)
