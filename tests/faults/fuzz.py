"""Feed the targets with input from atheris: `make fuzz`, or `python -m tests.faults.fuzz`.

Each target runs in a child process for its share of the time. It fails if an assertion fails, an
input hangs, or memory use is too high. The inputs found so far are kept in .local/fuzz, where the
next run begins.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

from tests.support.samples import BAD_LINE, PLAYED, VIDEO, notification, other, sqs, video

KEPT = Path(__file__).parent.parent.parent / ".local" / "fuzz"
NAMES = ("lines", "gzip_stream", "payload")

HANG_SECONDS = 20
"""The longest that one input may take, instrumented, on a busy machine. Our limit."""

RSS_LIMIT_MB = 256
"""Memory of one process, which a leak exceeds within minutes. Our limit."""

INPUT_BYTES = 4096

_KNOWN = {
    "bulk": {
        "mode": "bulk",
        "bucket": "b",
        "s3_prefix": "section",
        "section_id": 7,
        "start_date": "2024-01-01",
        "end_date": "2024-01-31",
        "dry_run": True,
        "force_reprocess": False,
    },
    "health_check": {"health_check": True},
    "token": {"continuation_token": "eyJzZWN0aW9uX2lkIjogNywgImFmdGVyIjogInNlY3Rpb24vNy9rIn0="},
    "direct": {"bucket": "b", "key": "section/7/video/2024-01-01T12-00-00Z_1.jsonl"},
    "sqs": sqs(a=notification("b", "k.jsonl"), b={"bucket": "b", "key": "k"}, c="[" * 9000),
}
SHAPES = [
    *(p.read_text() for p in sorted((Path(__file__).parents[1] / "events").glob("*.json"))),
    *map(json.dumps, _KNOWN.values()),
]
"""A payload of every kind, as JSON."""

_WORDS = [
    *("actor", "verb", "object", "context", "extensions", "timestamp", "stored", "result"),
    *(PLAYED, VIDEO + "time", VIDEO + "played-segments", "session-id"),
    *("1e999", "NaN", "null", "true", "\\\\ud800", "[.]", "[,]", "2024-01-01T00:00:00Z"),
    *("Records", "Message", "Notification", "aws:sqs", "body", "continuation_token", "bulk"),
    *("\\x1f\\x8b\\x08", "\\xef\\xbb\\xbf", "\\xff\\xff"),
]
"""What random search would not find, as libFuzzer spells it."""


def seeds(name: str) -> list[bytes]:
    """The first inputs for a target: valid input of every kind."""
    statements = [json.dumps(line).encode() for line in (video(1), other(1))]
    body = b"\r\n".join([*statements, b" ", BAD_LINE, b""])
    if name == "lines":
        return [*statements, body, b"\xef\xbb\xbf" + body, gzip.compress(body, mtime=0)]
    if name == "gzip_stream":
        member = gzip.compress(body, mtime=0)
        return [member, member + gzip.compress(b"", mtime=0) + member + b"\0" * 9]
    return [shape.encode() for shape in SHAPES]


def _child(name: str, seconds: int) -> None:
    """Search until time is up or something fails; does not return."""
    import atheris

    with atheris.instrument_imports(include=["xapi_etl_processor"]):
        from tests.faults import fuzz_targets
    home = KEPT / name
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-dict={KEPT / 'words'}",
        f"-artifact_prefix={home / 'failures'}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(home / "corpus")], fuzz_targets.TARGETS[name])
    atheris.Fuzz()


def _search(name: str, seconds: int) -> bool:
    """Run a child, and print what came of it; whether nothing failed."""
    home = KEPT / name
    for folder in ("corpus", "failures"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (home / "corpus" / f"seed-{number}").write_bytes(seed)
    (KEPT / "words").write_text("".join(f'"{word}"\n' for word in _WORDS), encoding="ascii")
    known = set((home / "failures").iterdir())
    command = [sys.executable, "-m", "tests.faults.fuzz", "--child", name]
    with (home / "log").open("w") as log:
        code = subprocess.run(
            [*command, "--seconds", str(seconds)], stdout=log, stderr=log, check=False
        ).returncode
    counts = dict(re.findall(r"^stat::(\w+): +(\d+)", (home / "log").read_text(), re.MULTILINE))
    print(
        f"{name}: {counts.get('number_of_executed_units', 'unknown')} inputs,"
        f" {counts.get('peak_rss_mb', 'unknown')} MB at most",
        flush=True,
    )
    found = sorted(set((home / "failures").iterdir()) - known)
    if code or found:
        print(f"{name} FAILED: ended with {code}; the log is {home / 'log'}")
    for file in found:
        print(f"  repeat: python -m tests.faults.fuzz --replay {name} {file}")
    return not code and not found


def main() -> int:
    """Run the command; the exit code is 1 if something failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz")
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together")
    parser.add_argument("--replay", nargs=2, metavar=("TARGET", "FILE"), help="run one input again")
    parser.add_argument("--child", choices=NAMES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.replay:
        from tests.faults.fuzz_targets import TARGETS

        TARGETS[asked.replay[0]](Path(asked.replay[1]).read_bytes())
    elif asked.child:
        _child(asked.child, asked.seconds)
    else:
        share = max(1, asked.seconds // len(NAMES))
        passed = [_search(name, share) for name in NAMES]
        return int(not all(passed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
