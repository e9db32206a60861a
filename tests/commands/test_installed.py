"""The command line as it is installed: in an empty environment, away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.samples import video
from xapi_etl_processor.base.config import Settings

ROOT = Path(__file__).parents[2]

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in another folder, with the environment's programs; what it printed."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(*command: str, code: int = 0) -> str:
        path = os.pathsep.join((str(tmp_path / "env/bin"), os.environ["PATH"]))
        done = subprocess.run(
            command,
            cwd=elsewhere,
            env={**os.environ, "PATH": path, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.timeout(300)  # It asks the package index.
def test_the_wheel_with_its_extra_migrates_loads_reports_and_completes(
    unmigrated: Settings, run: Run, tmp_path: Path
) -> None:
    # In a copy: a build leaves files beside its sources.
    source, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "xapi_etl_processor", source / "xapi_etl_processor", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "venv", str(tmp_path / "env"))
    pip = ("pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(source))
    (wheel,) = map(str, tmp_path.glob("*.whl"))
    run(*pip, "install", "--no-deps", wheel)
    assert "pip install '.[local]'" in run("xapi-etl", "--help", code=1)
    pins = str(ROOT / "requirements.txt")
    run(*pip, "install", "--no-compile", "--constraint", pins, f"{wheel}[local]")
    shutil.rmtree(source)

    assert run("xapi-etl", "--help").startswith("usage: xapi-etl ")
    assert json.loads(run("xapi-etl", "migrate"))["applied"][0] == "0001_tables.sql"
    bundle = elsewhere / "section/2001/video/2024-01-01T12-00-00Z_1.jsonl"
    bundle.parent.mkdir(parents=True)
    bundle.write_text(json.dumps(video(1)))
    assert json.loads(run("xapi-etl", "event", str(bundle)))["video_events_processed"] == 1
    run("xapi-etl", "report", "--section", "2001", "-o", "report.html")
    assert "https://example.org/video/1" in (elsewhere / "report.html").read_text()
    # What bash does at a tab.
    completed = run(
        "bash",
        "-c",
        'eval "$(register-python-argcomplete xapi-etl)"; COMP_LINE="xapi-etl re" COMP_POINT=11;'
        ' _python_argcomplete xapi-etl; echo "${COMPREPLY[@]}"',
    )
    assert completed.split() == ["rejects", "report"]
