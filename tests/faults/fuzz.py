"""Feed the targets with input from atheris: `make fuzz`, or `python -m tests.faults.fuzz`.

Each target runs in a child process for its share of the time. It fails if an assertion fails, an
input hangs, or memory use is too high or keeps growing. The inputs found so far are kept in
.local/fuzz, where the next run begins.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.samples import BAD_LINE, PLAYED, VIDEO, notification, other, sqs, video

KEPT = Path(__file__).parent.parent.parent / ".local" / "fuzz"
NAMES = ("lines", "gzip_stream", "payload")

HANG_SECONDS = 20
"""The longest that one input may take, instrumented, on a busy machine. Our limit."""

RSS_LIMIT_MB = 512
"""Memory of one process: that of the smallest useful Lambda function. Our limit."""

GROWTH_LIMIT_MB = 64
"""Growth after the warm-up, for the corpus and what Python keeps. A leak exceeds it within a
minute. Our limit."""

INPUT_BYTES = 4096
_WARM_UP = 0.25
_PROGRESS = struct.Struct("<Qdd")
_MB = 1024**2


def seeds(name: str) -> list[bytes]:
    """The first inputs for a target: valid input of every kind."""
    statements = [json.dumps(line).encode() for line in (video(1), other(1))]
    body = b"\r\n".join([*statements, b" ", BAD_LINE, b""])
    if name == "lines":
        return [*statements, body, b"\xef\xbb\xbf" + body, gzip.compress(body, mtime=0)]
    if name == "gzip_stream":
        member = gzip.compress(body, mtime=0)
        return [member, member + gzip.compress(b"", mtime=0) + member + b"\0" * 9, bytes(range(64))]
    events = (Path(__file__).parent.parent / "events").glob("*.json")
    payloads = [
        sqs(a=notification("b", "section/7/video/k.jsonl"), b="no JSON"),
        {"mode": "bulk", "section_id": 7, "start_date": "2024-01-01", "dry_run": True},
        {"continuation_token": "eyJhZnRlciI6ICJrIn0="},
        {"health_check": True},
    ]
    return [
        *(path.read_bytes() for path in sorted(events)),
        *(json.dumps(payload).encode() for payload in payloads),
        *(bytes((shape, 3, *range(shape, shape + 40))) for shape in range(20)),
    ]


def _dictionary() -> str:
    """Words that random search would not find, in libFuzzer's format."""
    statement = {
        "actor",
        "verb",
        "object",
        "context",
        "extensions",
        "timestamp",
        "stored",
        "result",
    }
    words = [*sorted(statement), PLAYED, VIDEO + "time", VIDEO + "played-segments", "session-id"]
    words += ["1e999", "NaN", "null", "true", "\\\\ud800", "[.]", "[,]", "2024-01-01T00:00:00Z"]
    words += ["Records", "Message", "Notification", "aws:sqs", "body", "continuation_token", "bulk"]
    words += ["\\x1f\\x8b\\x08", "\\xef\\xbb\\xbf", "\\xff\\xff"]
    return "".join(f'"{word}"\n' for word in words)


@dataclass
class Progress:
    """A child's progress: inputs tried, and megabytes after the warm-up and now."""

    inputs: int = 0
    warm: float = 0
    now: float = 0


class _Watched:
    """A target that writes its progress to a file, which survives a crash of the process."""

    def __init__(self, target: Callable[[bytes], None], file: Path, seconds: float) -> None:
        self._target = target
        self._file = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        self._warm_at = time.monotonic() + seconds * _WARM_UP
        self._progress = Progress()

    def __call__(self, data: bytes) -> None:
        progress = self._progress
        progress.inputs += 1
        if progress.inputs % 256 == 1:
            progress.now = _rss_mb()
            if time.monotonic() < self._warm_at:
                progress.warm = progress.now
        noted = _PROGRESS.pack(progress.inputs, progress.warm, progress.now)
        os.pwrite(self._file, noted, 0)
        self._target(data)


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MB


def _child(name: str, seconds: int) -> None:
    """Search until time is up or something fails; does not return."""
    import atheris

    with atheris.instrument_imports(include=["xapi_etl_processor", "tests.faults.built"]):
        from tests.faults import fuzz_targets
    home = KEPT / name
    target = _Watched(fuzz_targets.TARGETS[name], home / "progress", seconds)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-dict={KEPT / 'words'}",
        f"-artifact_prefix={home / 'failures'}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(home / "corpus")], target)
    atheris.Fuzz()


def _search(name: str, seconds: int) -> tuple[Progress, str]:
    """Run a child; returns its progress and its failure, or an empty text."""
    home = KEPT / name
    for folder in ("corpus", "failures"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (home / "corpus" / f"seed-{number}").write_bytes(seed)
    (KEPT / "words").write_text(_dictionary(), encoding="ascii")
    (home / "progress").unlink(missing_ok=True)
    known = set((home / "failures").iterdir())
    command = [sys.executable, "-m", "tests.faults.fuzz", "--child", name]
    with (home / "log").open("w", encoding="utf-8") as log:
        code = subprocess.run(
            [*command, "--seconds", str(seconds)], stdout=log, stderr=log, check=False
        ).returncode
    progress = _progress_in(home / "progress")
    found = sorted(set((home / "failures").iterdir()) - known)
    return progress, _failure(name, code, found, progress)


def _progress_in(file: Path) -> Progress:
    noted = file.read_bytes() if file.exists() else b""
    return Progress(*_PROGRESS.unpack(noted)) if noted else Progress()


def _failure(name: str, code: int, found: list[Path], progress: Progress) -> str:
    if not code and not found:
        growth = progress.now - progress.warm
        return f"memory grew by {growth:.0f} MB" if growth > GROWTH_LIMIT_MB else ""
    said = f"ended with {code}; the log is {KEPT / name / 'log'}"
    for file in found:
        said += f"\n  input: {file.read_bytes().hex()}"
        said += f"\n  repeat: python -m tests.faults.fuzz --replay {name} {file}"
    return said


def search(seconds: int) -> int:
    """Search with each target for its share of the time; returns the exit code."""
    total = failed = 0
    for name in NAMES:
        progress, failure = _search(name, max(1, seconds // len(NAMES)))
        total += progress.inputs
        print(
            f"{name}: {progress.inputs} inputs,"
            f" {progress.warm:.0f} MB after the warm-up, {progress.now:.0f} MB at the end",
            flush=True,
        )
        if failure:
            failed += 1
            print(f"{name} FAILED: {failure}", flush=True)
    print(f"{total} inputs in all, {failed} of {len(NAMES)} targets failed")
    return 1 if failed else 0


def replay(name: str, file: Path) -> int:
    """Run one input again, without atheris; raises what it raises."""
    from tests.faults.fuzz_targets import TARGETS

    TARGETS[name](file.read_bytes())
    print(f"{name}: nothing wrong with {file}")
    return 0


def main() -> int:
    """Run the command; the exit code is 1 if something failed, 2 without atheris."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"), help="run one input again")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.replay:
        return replay(asked.replay[0], Path(asked.replay[1]))
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed here: use `make fuzz`", file=sys.stderr)
        return 2
    if asked.child:
        _child(asked.child, asked.seconds)
        return 0
    return search(asked.seconds)


if __name__ == "__main__":
    sys.exit(main())
