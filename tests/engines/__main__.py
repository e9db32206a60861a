"""Do the same things on many versions of ClickHouse, and compare what they answer with the newest.

make engines                        all versions; their wheels are installed once
make engines ENGINES=ci             those that CI tries
make engines ENGINES="23.10 25.8"   some
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from local import process
from local.aws import loader_environment
from tests.engines.versions import ENGINES, NEWEST, ROOT, Engine, install, serving

SECONDS = 300
"""How long the scenario may take on one engine; it takes half a minute."""

SHOWN = 300
"""Characters of a difference that are shown."""


def found_on(engine: Engine, endpoint: dict[str, str]) -> dict[str, Any]:
    """What each step of the scenario finds on this engine."""
    with TemporaryDirectory() as folder, serving(engine, Path(folder) / "data") as port:
        variables = loader_environment(port, endpoint, f"engines-{os.getpid()}")
        done = subprocess.run(
            [sys.executable, "-m", "tests.engines.scenario"],
            cwd=ROOT,
            env={**os.environ, **variables, "LOG_LEVEL": "CRITICAL", "XDG_STATE_HOME": folder},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=SECONDS,
        )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    return dict(lines)


def differences(found: dict[str, Any], newest: dict[str, Any]) -> list[str]:
    """Each step that found something else than on the newest engine, or that failed on both."""
    return [
        _shown(step, json.dumps(found.get(step)), json.dumps(expected))
        for step, expected in newest.items()
        if found.get(step) != expected or re.match(r"\w+(Error|Exception|Refused): ", str(expected))
    ]


def _shown(step: str, here: str, newest: str) -> str:
    """The texts from shortly before the place where they begin to differ."""
    same = next((n for n, (a, b) in enumerate(zip(here, newest, strict=False)) if a != b), 0)
    start = max(same - 60, 0)
    return f"{step}\n    here:   {here[start:][:SHOWN]}\n    newest: {newest[start:][:SHOWN]}"


def chosen(names: list[str]) -> list[Engine]:
    """The engines that are named, all without a name."""
    unknown = set(names) - {engine.version for engine in ENGINES}
    if unknown:
        sys.exit(f"engines: no {', '.join(sorted(unknown))}: see tests/engines/versions.py")
    return [engine for engine in ENGINES if not names or engine.version in names]


def main() -> int:
    """Run it; 1 if an engine answers anything else than the newest."""
    engines = [engine for engine in chosen(sys.argv[1:]) if engine is not NEWEST]
    for engine in engines:
        install(engine)
    wrong = 0
    with process.s3() as endpoint:
        newest = found_on(NEWEST, endpoint)
        bad = differences(newest, newest)
        print("\n".join([f"ClickHouse {NEWEST.version}: {len(newest)} steps", *bad]), flush=True)
        wrong += len(bad)
        for engine in engines:
            started = time.monotonic()
            different = differences(found_on(engine, endpoint), newest)
            wrong += len(different)
            seconds = time.monotonic() - started
            said = f"{len(different)} answers differ" if different else "answers the same"
            print(f"ClickHouse {engine.version}: {said} ({seconds:.0f} s)", flush=True)
            print(
                "\n".join(f"  {one}" for one in different), flush=True, end="\n" * bool(different)
            )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
