"""Deployment packages for tests, each built once, and Lambda's runtime to run them with."""

from __future__ import annotations

import hashlib
import os
import platform
import zipfile
from pathlib import Path

import pytest

from deployment.package import ARCHITECTURES, build
from local.lambda_runtime import install_runtime, interpreters, unpack
from tests.support.shared import made_once

HERE = "arm64" if platform.machine() == ARCHITECTURES["arm64"] else "x86_64"


class Packages:
    """Packages by Python version, in a folder that all processes of the test run share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.interpreters = interpreters() if platform.system() == "Linux" else {}

    def interpreter(self, python: str) -> str:
        """The interpreter; skips the test if this machine lacks it."""
        if python not in self.interpreters:
            pytest.skip(f"this machine has no Python {python} for Linux to run the package with")
        return self.interpreters[python]

    def zip(self, python: str, arch: str = HERE) -> Path:
        """The package that deploy.sh built, if it fits; else one that is built here."""
        built = os.environ.get("XAPI_PACKAGE")
        if built and _is_for(Path(built), python, arch):
            return Path(built)
        return made_once(
            self.folder, f"{python}-{arch}.zip", lambda path: build(path, python, arch)
        )

    def task(self, python: str) -> Path:
        """The unpacked package, as in /var/task."""
        return self.unpacked(self.zip(python), python)

    def unpacked(self, package: Path, python: str) -> Path:
        """A package's files, and their bytecode, so that it starts sooner than in Lambda."""
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        interpreter = self.interpreter(python)
        return made_once(
            self.folder,
            f"task-{python}-{digest}",
            lambda folder: unpack(package, folder, compile_with=interpreter),
        )

    def runtime(self, python: str) -> Path:
        """The libraries of Lambda's runtime, as in /var/runtime."""
        return made_once(
            self.folder, f"runtime-{python}", lambda folder: install_runtime(folder, python)
        )


def _is_for(package: Path, python: str, arch: str) -> bool:
    tag = f"cpython-{python.replace('.', '')}-{ARCHITECTURES[arch]}-"
    with zipfile.ZipFile(package) as file:
        return any(tag in name for name in file.namelist())
