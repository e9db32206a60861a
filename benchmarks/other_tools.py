"""What tools that others wrote take for a file of statements. Runs in an environment of theirs.

    .venv/bench/ralph/bin/python benchmarks/other_tools.py ralph FILE PORT
    .venv/bench/dlt/bin/python benchmarks/other_tools.py dlt FILE FOLDER

prints seconds and seconds of processor as JSON, of a second pass over the file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_ROWS = 20_000


def ralph(path: str, port: str) -> Callable[[], object]:
    """Ralph's write path: each statement is stored whole, as a text beside its id and time."""
    from ralph.backends.data.clickhouse import ClickHouseDataBackend, ClickHouseDataBackendSettings

    settings = ClickHouseDataBackendSettings(
        HOST="127.0.0.1", PORT=int(port), DATABASE="xapi", WRITE_CHUNK_SIZE=_ROWS
    )
    backend = ClickHouseDataBackend(settings)

    def write() -> None:
        with Path(path).open("rb") as file:
            backend.write(file)

    return write


def dlt(path: str, folder: str) -> Callable[[], object]:
    """What dlt does before it sends anything: extract the statements, and normalize them."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    import dlt

    def statements() -> Iterator[Any]:
        with Path(path).open("rb") as file:
            yield from map(json.loads, file)

    pipeline = dlt.pipeline(
        "bench", destination="clickhouse", dataset_name="bench", pipelines_dir=folder
    )

    def prepare() -> None:
        pipeline.extract(dlt.resource(statements(), name="statements"))
        pipeline.normalize(workers=1)

    return prepare


def main() -> None:
    """Run a tool twice, and print what the second time took."""
    tool, *arguments = sys.argv[1:]
    run = {"ralph": ralph, "dlt": dlt}[tool](*arguments)
    run()
    started, used = time.perf_counter(), time.process_time()
    run()
    times = {"wall": time.perf_counter() - started, "cpu": time.process_time() - used}
    print(json.dumps(times))


if __name__ == "__main__":
    main()
