"""Deployment packages for tests, each made once: the real zip, and what Lambda has beside it."""

from __future__ import annotations

import os
import platform
import zipfile
from pathlib import Path

import pytest

from deployment.package import ARCHITECTURES, build
from local.lambda_runtime import install_runtime, interpreters, unpack

HERE = "arm64" if platform.machine() == ARCHITECTURES["arm64"] else "x86_64"


class Packages:
    """Packages by Python version, for this machine, in folders of the session."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.interpreters = interpreters() if platform.system() == "Linux" else {}

    def interpreter(self, python: str) -> str:
        """The interpreter, or a skip that says what is missing."""
        if python not in self.interpreters:
            pytest.skip(f"no Python {python} for Linux on this machine to run its package")
        return self.interpreters[python]

    def zip(self, python: str, arch: str = HERE) -> Path:
        """What deploy.sh made, if it was for this Python and processor, else the same made anew."""
        given = os.environ.get("XAPI_PACKAGE")
        if given and _is_for(Path(given), python, arch):
            return Path(given)
        path = self.folder / f"{python}-{arch}.zip"
        if not path.exists():
            build(path, python, arch)
        return path

    def task(self, python: str) -> Path:
        """The package laid out, as /var/task."""
        folder = self.folder / f"task-{python}"
        if not folder.exists():
            unpack(self.zip(python), folder)
        return folder

    def runtime(self, python: str) -> Path:
        """What Lambda's runtime has, as /var/runtime."""
        folder = self.folder / f"runtime-{python}"
        if not folder.exists():
            install_runtime(folder, python)
        return folder


def _is_for(package: Path, python: str, arch: str) -> bool:
    tag = f"cpython-{python.replace('.', '')}-{ARCHITECTURES[arch]}-"
    with zipfile.ZipFile(package) as file:
        return any(tag in name for name in file.namelist())
