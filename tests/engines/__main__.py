"""Do the same things on many versions of ClickHouse, and compare what they answer with the newest.

make engines                        all versions; their wheels are installed once
make engines ENGINES=ci             those that each change is tried on
make engines ENGINES="23.10 25.8"   some
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from local import process
from local.aws import loader_environment
from tests.engines.versions import ENGINES, NEWEST, ROOT, Engine, install, serving

SECONDS = 600
"""How long the scenario may take on one engine. It takes half a minute, or two minutes where each
query has a process of its own."""

AT_ONCE = 2
"""How many engines are tried at once."""

SHOWN = 300
"""Characters of a difference that are shown."""

Found = dict[str, Any]
"""Step of the scenario -> what it found."""


def found_on(engine: Engine) -> tuple[Found, float]:
    """What each step of the scenario finds on this engine, and the seconds it took."""
    started = time.monotonic()
    with (
        TemporaryDirectory() as folder,
        serving(engine, Path(folder) / "data") as port,
        process.s3() as endpoint,
    ):
        variables = loader_environment(port, endpoint, "engines")
        done = subprocess.run(
            [sys.executable, "-m", "tests.engines.scenario"],
            cwd=ROOT,
            env={**os.environ, **variables, "LOG_LEVEL": "CRITICAL"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=SECONDS,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    return dict(lines), time.monotonic() - started


def differences(engine: Engine, found: Found, newest: Found) -> list[str]:
    """Each step that found something else than on the newest engine, or that failed on both."""
    return [
        _shown(step, json.dumps(found.get(step)), json.dumps(expected))
        for step, expected in newest.items()
        if step not in engine.without
        if found.get(step) != expected or re.match(r"\w+(Error|Exception|Refused): ", str(expected))
    ]


def _shown(step: str, here: str, newest: str) -> str:
    """The texts from shortly before the place where they begin to differ."""
    same = next((n for n, (a, b) in enumerate(zip(here, newest, strict=False)) if a != b), 0)
    start = max(same - 60, 0)
    return f"{step}\n    here:   {here[start:][:SHOWN]}\n    newest: {newest[start:][:SHOWN]}"


def chosen(names: list[str]) -> list[Engine]:
    """The engines that are named, `ci` for those of CI, all without a name; the newest last."""
    unknown = set(names) - {engine.name for engine in ENGINES} - {"ci"}
    if unknown:
        sys.exit(f"engines: no {', '.join(sorted(unknown))}: see tests/engines/versions.py")
    return [
        engine
        for engine in ENGINES
        if not names or engine.name in names or engine is NEWEST or (engine.ci and "ci" in names)
    ]


def main() -> int:
    """Run it; 1 if an engine answers anything else than the newest."""
    engines = chosen(sys.argv[1:])
    for engine in engines:
        install(engine)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        all_found = list(pool.map(found_on, engines))
    newest, _ = all_found[-1]
    wrong = 0
    for engine, (found, seconds) in zip(engines, all_found, strict=True):
        different = differences(engine, found, newest)
        wrong += len(different)
        said = f"{len(different)} answers differ" if different else f"{len(newest)} answers agree"
        left_out = f", {', '.join(engine.without)} left out" if engine.without else ""
        print(f"ClickHouse {engine.name}: {said}{left_out} ({seconds:.0f} s)", flush=True)
        for one in different:
            print(f"  {one}", flush=True)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
