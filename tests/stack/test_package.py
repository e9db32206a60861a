"""The deployment package: what is in it, and that it runs where only it can be imported."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployment import package as packaging
from deployment.package import (
    DEFAULT_PYTHON,
    MAX_BYTES,
    PYTHONS,
    PackageError,
    bill_of_materials,
    build,
)
from local.lambda_runtime import LambdaRuntime
from tests.conftest import Ask, Bucket
from tests.support.account import PYTHON
from tests.support.packages import HERE, Packages
from tests.support.samples import event_id, notification, sqs, video
from xapi_etl_processor import __version__
from xapi_etl_processor.base.config import Settings

pytestmark = pytest.mark.slow

KEY = "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
OTHERS = [python for python in PYTHONS if python != PYTHON]
ELF_MACHINES = {"x86_64": 0x3E, "arm64": 0xB7}  # e_machine of the ELF specification


@pytest.mark.check("S16")
@pytest.mark.parametrize(
    ("python", "arch"),
    [
        (PYTHON, HERE),
        *(pytest.param(python, "x86_64", marks=pytest.mark.ci) for python in OTHERS),
        # One Python is enough for arm64.
        pytest.param(PYTHONS[-1], "arm64", marks=pytest.mark.ci),
    ],
)
def test_it_is_small_and_every_binary_is_for_its_python_and_architecture(
    packages: Packages, python: str, arch: str
) -> None:
    assert packages.zip(python, arch).stat().st_size <= MAX_BYTES == 12_000_000
    with zipfile.ZipFile(packages.zip(python, arch)) as file:
        binaries = [name for name in file.namelist() if name.endswith(".so")]
        assert len(binaries) > 5
        for name in binaries:
            assert f".cpython-{python.replace('.', '')}-" in name or ".abi3." in name
            head = file.read(name)[:20]
            assert head[:4] == b"\x7fELF"
            assert int.from_bytes(head[18:20], "little") == ELF_MACHINES[arch], name


Start = Callable[..., Any]


@pytest.fixture
def start(
    packages: Packages, settings: Settings, aws_environment: dict[str, str], tmp_path: Path
) -> Start:
    """Start a package as Lambda does, configured for the test's bucket and database."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("CLICKHOUSE_", "S3_XAPI_", "ENVIRONMENT"))
    }

    @contextmanager
    def start(python: str, **more: Any) -> Iterator[LambdaRuntime]:
        interpreter = packages.interpreter(python)
        (scratch := tmp_path / "scratch").mkdir()
        with LambdaRuntime(
            more.pop("task", None) or packages.task(python),
            packages.runtime(python),
            scratch,
            {**aws_environment, **variables, **more.pop("variables", {})},
            interpreter=interpreter,
            **more,
        ) as runtime:
            yield runtime

    return start


@pytest.mark.check("S16")
def test_it_contains_only_what_runs_in_lambda_readable_by_all(packages: Packages) -> None:
    with zipfile.ZipFile(packages.zip(PYTHON)) as file:
        items, names = file.infolist(), file.namelist()
    tops = {re.split(r"[/.]|-\d", name)[0] for name in names}
    assert tops == {
        *("aws_lambda_powertools", "clickhouse_cityhash", "clickhouse_driver", "index"),
        *("jmespath", "lz4", "msgspec", "obstore", "pytz", "typing_extensions", "tzlocal"),
        "xapi_etl_processor",
    }
    ours = {name for name in names if name.startswith("xapi_etl_processor/")}
    assert "xapi_etl_processor/lambda_function.py" in ours
    assert "xapi_etl_processor/storage/ledger.py" in ours
    not_for_lambda = re.compile(
        r"/(cli|__main__)\.py$|/views\.sql$"
        r"|/(audit|commands|explain|migrations|privacy|report|schema)/"
    )
    assert not [name for name in ours if not_for_lambda.search(name)]
    unwanted = re.compile(r"__pycache__|(^|/)tests?/|\.env$|\.git|\.pem$|/bin/|RECORD$|\.pyc$")
    assert not [name for name in names if unwanted.search(name)]
    licences = [name for name in names if re.search(r"dist-info/.*LICEN[CS]E", name)]
    assert len(licences) >= 8
    assert {stat.S_IMODE(item.external_attr >> 16) for item in items} == {0o644}
    assert {item.date_time for item in items} == {(1980, 1, 1, 0, 0, 0)}
    assert {item.create_system for item in items} == {3}  # Unix
    assert names == sorted(names)


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Build packages without dependencies, so that it is quick."""
    (tmp_path / "requirements.txt").write_text("# none, to be quick\n")
    monkeypatch.setattr(packaging, "_PINS", tmp_path / "requirements.txt")


@pytest.mark.ci
@pytest.mark.check("S16", "S17")
def test_the_same_sources_give_the_same_bytes_and_a_package_that_is_too_large_is_not_written(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built = tmp_path / "p.zip"
    monkeypatch.setattr("sys.argv", ["package", "--output", str(built)])
    assert packaging.main() == 0
    lines, bytes_of_it = capsys.readouterr().out.splitlines(), built.read_bytes()
    assert lines[0] == f"p.zip for Python {DEFAULT_PYTHON} on x86_64"
    assert lines[-2] == f"  sha256 {hashlib.sha256(bytes_of_it).hexdigest()}"
    assert lines[-1] == "  what is in it, as CycloneDX: p.cdx.json"
    assert json.loads((tmp_path / "p.cdx.json").read_text())["components"] == []

    os.utime(packaging._ROOT / "deployment" / "index.py")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    old = os.umask(0o077)
    try:
        build(tmp_path / "again.zip", DEFAULT_PYTHON, "x86_64")
    finally:
        os.umask(old)
    assert (tmp_path / "again.zip").read_bytes() == bytes_of_it

    monkeypatch.setattr(packaging, "MAX_BYTES", 1000)
    assert packaging.main() == 1
    said = capsys.readouterr().err
    assert re.search(r"(?s)^package: p.zip would be .*more than 1,000: .*xapi_etl_processor", said)
    assert built.read_bytes() == bytes_of_it
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["again.zip", "p.cdx.json", "p.zip", "requirements.txt"]


@pytest.mark.check("S15")
@pytest.mark.parametrize(
    ("pattern", "forged", "error"),
    [
        (r"sha256:[0-9a-f]{64}", "sha256:" + "0" * 64, "DO NOT MATCH THE HASHES"),
        pytest.param(r" \\\n +--hash=\S+", "", "Hashes are required", marks=pytest.mark.ci),
    ],
    ids=["another hash", "no hash"],
)
def test_a_dependency_with_another_hash_or_none_is_refused(
    pattern: str,
    forged: str,
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    lz4 = re.search(r"^lz4==.*?(?=^\w)", packaging._PINS.read_text(), re.M | re.S)
    assert lz4
    (tmp_path / "requirements.txt").write_text(re.sub(pattern, forged, lz4[0]))
    monkeypatch.setattr(packaging, "_PINS", tmp_path / "requirements.txt")
    monkeypatch.setattr(packaging, "_ROOT", tmp_path)
    with pytest.raises(PackageError, match=r"could not install requirements.txt for Python"):
        build(tmp_path / "x.zip", PYTHON, "x86_64")
    assert error in capfd.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_the_bill_of_materials_names_what_is_pinned_and_the_package_itself(
    packages: Packages,
) -> None:
    package = packages.zip(PYTHON)
    bill = json.loads(bill_of_materials(package))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["hashes"] == [
        {"alg": "SHA-256", "content": hashlib.sha256(package.read_bytes()).hexdigest()}
    ]
    pins = set(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", packaging._PINS.read_text(), re.MULTILINE))
    named = {(one["name"].lower().replace("_", "-"), one["version"]) for one in bill["components"]}
    assert {name for name, _ in named} >= {"clickhouse-driver", "msgspec", "obstore"}
    assert named <= pins
    for one in bill["components"]:
        assert one["purl"] == f"pkg:pypi/{one['name'].lower().replace('_', '-')}@{one['version']}"


def test_the_package_and_what_runs_have_the_versions_that_the_tests_ran_with() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", path.read_text(), re.M))

    tested, ours = (
        pins(packaging._ROOT / name) for name in ("requirements-dev.txt", "requirements.txt")
    )
    assert {name: tested[name] for name in ours} == ours
    shipped = pins(packaging._PINS)
    shipped.pop("tzdata")  # for Windows only
    assert {name: ours[name] for name in shipped} == shipped
    assert "boto3" not in shipped


@pytest.mark.ci
@pytest.mark.parametrize("python", [PYTHON, *OTHERS])
def test_it_answers_a_health_check_loads_a_bundle_and_reports_failures(
    python: str, start: Start, bucket: Bucket, ask: Ask
) -> None:
    bucket.put(KEY, video(1), video(2), b"bad")
    with start(python) as runtime:
        answer = runtime.invoke({"health_check": True})
        assert (answer.failed, answer.payload["statusCode"]) == (False, 200), answer
        assert f'"version": "{__version__}"' in answer.payload["body"]
        answer = runtime.invoke(notification(bucket.name, KEY))
        assert (answer.failed, answer.payload["statusCode"]) == (False, 200), answer
        answer = runtime.invoke({"mode": "bulk", "section_id": 2001})
        assert '"files_skipped": 1' in answer.payload["body"]
        answer = runtime.invoke(notification(bucket.name, "section/1/gone.jsonl"))
        assert answer.failed
        assert answer.payload["errorType"] == "EventFailed"
        assert "does not exist" in answer.payload["errorMessage"]
        answer = runtime.invoke(sqs(poison="no JSON"))
        assert answer == ({"batchItemFailures": [{"itemIdentifier": "poison"}]}, False)
    assert ask("SELECT event_id FROM video_events FINAL ORDER BY 1") == [
        [event_id(1)],
        [event_id(2)],
    ]
    assert ask("SELECT count() FROM rejected_statements FINAL") == [[1]]
