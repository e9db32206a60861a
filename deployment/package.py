"""Builds the deployment package: our code and its dependencies as wheels for Lambda, in one zip.

python3 -m deployment.package --python 3.13 --arch x86_64 --output xapi-etl-processor.zip

Needs only pip, so that it works before anything is set up. The same sources give the same bytes, if
zlib is the same too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from email.parser import Parser
from pathlib import Path

from xapi_etl_processor import __version__

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
DEFAULT_PYTHON = "3.13"
"""The newest Python that our tests run the package with."""

ARCHITECTURES = {"x86_64": "x86_64", "arm64": "aarch64"}
"""Lambda's names of its architectures, and the names that wheels use."""

MAX_BYTES = 12_000_000
"""The largest zip, as every byte is fetched at a cold start. Our limit; Lambda's is 50 MB."""

_ROOT = Path(__file__).parent.parent
_PINS = _ROOT / "deployment" / "requirements.txt"
_FOR_PEOPLE = ("audit", "commands", "explain", "migrations", "privacy", "report")
"""Folders of our package that only its command line uses; some need libraries that the zip does not
have."""

_COMMAND_LINE = ("__main__.py", "cli.py")

_PIP_FILES = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can store."""


class PackageError(Exception):
    """The package could not be built; the text says why."""


def build(output: Path, python: str, arch: str) -> None:
    """Write the zip; raises PackageError if pip fails or the zip is larger than MAX_BYTES.

    Hashes are checked, and only wheels are installed: no code of a dependency is compiled or run.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _install(folder, python, arch)
        ours = folder / "xapi_etl_processor"
        shutil.copytree(_ROOT / ours.name, ours, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(_ROOT / "deployment" / "index.py", folder)
        # Written beside it and then renamed, so that a build that is stopped leaves no partial zip.
        unfinished = output.with_name(f"{output.name}.unfinished")
        try:
            _write(unfinished, folder)
            if (size := unfinished.stat().st_size) > MAX_BYTES:
                raise PackageError(
                    f"{output.name} would be {size:,} bytes, more than {MAX_BYTES:,}:"
                    f" see which package has grown\n{contents(unfinished)}"
                )
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)


def contents(package: Path) -> str:
    """A table of the packages in the zip and their sizes, the largest first, then the total."""
    zipped: Counter[str] = Counter()
    unpacked: Counter[str] = Counter()
    versions: dict[str, str] = {}
    with zipfile.ZipFile(package) as file:
        for item in file.infolist():
            top = item.filename.partition("/")[0]
            name, _, version = top.removesuffix(".dist-info").partition("-")
            name = name.removesuffix(".py")
            versions[name] = versions.get(name) or version
            zipped[name] += item.compress_size
            unpacked[name] += item.file_size
    rows = [
        f"  {size:>9,} {unpacked[name]:>11,}  {name} {versions[name]}".rstrip()
        for name, size in zipped.most_common()
    ]
    total = f"  {package.stat().st_size:>9,} {unpacked.total():>11,}  total"
    return "\n".join((f"  {'zipped':>9} {'bytes':>11}  package", *rows, total))


def bill_of_materials(package: Path) -> str:
    """What is in the zip, as CycloneDX 1.6 in JSON: each library by name, version and license."""
    components = []
    with zipfile.ZipFile(package) as file:
        for name in file.namelist():
            if not name.endswith(".dist-info/METADATA"):
                continue
            about = Parser().parsestr(file.read(name).decode())
            component: dict[str, object] = {
                "type": "library",
                "name": about["Name"],
                "version": about["Version"],
                "purl": f"pkg:pypi/{about['Name'].lower().replace('_', '-')}@{about['Version']}",
            }
            if license_expression := about["License-Expression"]:
                component["licenses"] = [{"expression": license_expression}]
            components.append(component)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    subject = {
        "type": "application",
        "name": "xapi-etl-processor",
        "version": __version__,
        "hashes": [{"alg": "SHA-256", "content": digest}],
    }
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }
    return json.dumps(bill, indent=2) + "\n"


def _install(folder: Path, python: str, arch: str) -> None:
    machine = ARCHITECTURES[arch]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--root-user-action", "ignore", "--no-compile", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    # The oldest system among Lambda's runtimes, Amazon Linux 2, has glibc 2.26.
    for system in ("manylinux2014", "manylinux_2_17", "manylinux_2_24"):
        command += ["--platform", f"{system}_{machine}"]
    command += ["--target", str(folder), "--requirement", str(_PINS)]
    try:
        subprocess.run(command, check=True)  # noqa: S603  # pip, and our own pins
    except subprocess.CalledProcessError:
        raise PackageError(
            f"pip could not install {_PINS.relative_to(_ROOT)} for Python {python} on {arch}:"
            " see its error above"
        ) from None


def _write(output: Path, folder: Path) -> None:
    """Write files in a fixed order, with a fixed time and mode, so that only contents matter."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path)
        for path in folder.rglob("*")
        if path.is_file() and _belongs(path.relative_to(folder))
    )
    with zipfile.ZipFile(output, "w") as package:
        for name, path in files:
            item = zipfile.ZipInfo(name, _EARLIEST_TIME)
            item.external_attr = 0o100644 << 16
            item.create_system = 3  # Unix, on every system
            # Level 9 takes six times as long, for less than one percent.
            package.writestr(item, path.read_bytes(), zipfile.ZIP_DEFLATED, 6)


def _belongs(path: Path) -> bool:
    if path.parts[0] == "bin" or "__pycache__" in path.parts or "tests" in path.parts:
        return False
    if path.parts[0] == "xapi_etl_processor" and path.parts[1] in (*_FOR_PEOPLE, *_COMMAND_LINE):
        return False
    return not (path.parts[0].endswith(".dist-info") and path.name in _PIP_FILES)


def main() -> int:
    """Build the package and print what is in it."""
    parser = argparse.ArgumentParser(prog="python3 -m deployment.package", description=__doc__)
    parser.add_argument("--python", choices=PYTHONS, default=DEFAULT_PYTHON)
    parser.add_argument("--arch", choices=ARCHITECTURES, default="x86_64")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    try:
        build(options.output, options.python, options.arch)
    except (PackageError, OSError) as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    bill = options.output.with_suffix(".cdx.json")
    bill.write_text(bill_of_materials(options.output))
    digest = hashlib.sha256(options.output.read_bytes()).hexdigest()
    print(f"{options.output.name} for Python {options.python} on {options.arch}")
    print(contents(options.output))
    print(f"  sha256 {digest}")
    print(f"  what is in it, as CycloneDX: {bill.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
