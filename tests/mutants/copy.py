"""A copy of the project in which files can be changed and tests run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.mutants.faults import ROOT, Fault

TEST_SECONDS = 60
"""A test that takes longer fails: some faults wait without end. Our limit."""

RUN_SECONDS = 900
"""A run of the tests that takes longer counts as one that fails. Our limit."""

MEMORY_KB = 8 * 1024**2
"""How much memory the tests may allocate: some faults allocate without end. Our limit."""

FAST = ("-m", "not slow")
"""Chooses the tests of `make test-fast`."""


class Copy:
    """The project's files, with changes that are not committed yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        # deploy.sh and the demo look for it there.
        (folder / ".venv").symlink_to(sys.prefix)

    def caught_by(self, fault: Fault) -> str | None:
        """The test that fails because of the fault; None if all pass."""
        path = self.folder / fault.file
        path.write_text(fault.code)
        try:
            # The module's own slow tests run too: only they catch some faults.
            return self.failing(*fault.tests) or self.failing(*FAST)
        finally:
            shutil.copy2(ROOT / fault.file, path)

    def failing(self, *tests: str) -> str | None:
        """The first test that fails, or how else the run ended; None if all pass."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "--no-header"]
        command += ["-p", "no:randomly", "-p", "no:cacheprovider", f"--timeout={TEST_SECONDS}"]
        command += ["--numprocesses", "2"]
        limited = ["sh", "-c", f'ulimit -d {MEMORY_KB} && exec "$@"', "sh", *command, *tests]
        process = subprocess.Popen(
            limited,
            cwd=self.folder,
            # Bytecode of a file with a fault must not outlive the fault.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            return "the tests do not end"
        finally:
            # Those that it has started too.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        status = process.returncode
        for line in output.splitlines() if status else ():
            word, _, rest = line.partition(" ")
            if word in ("FAILED", "ERROR"):
                test, _, why = rest.partition(" - ")
                return f"{test} (after {TEST_SECONDS} s)" if "Timeout" in why else test
        # Not even its own files could be loaded; without a fault, there are no such tests.
        return f"pytest ends with {status}: {output.strip()[-80:]}" if status else None
