"""Statements per second and memory for one large object, compared to ClickHouse's own import.

    python -m benchmarks.throughput [--megabytes 300]

Both read the same bytes in the same run, each on one thread. The loader runs in a separate process,
as in Lambda; its memory is the peak above idle. Rounds alternate, so that noise of the machine
affects both. Compare the ratio, not the seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from local import process
from local.bundles import generate

BUCKET, KEY = "archive", "section/2001/video/2024-01-01T00-00-00Z_merged.jsonl"
DATABASE = "xapi_analytics"
ROUNDS = 3

_VIDEO = "https://w3id.org/xapi/video/extensions/"
_OLI = "http://oli.cmu.edu/extensions/"


def make_file(path: Path, megabytes: int) -> int:
    """Write distinct video statements up to that size; returns their number."""
    seed = [
        json.loads(line)
        for bundle in generate(days=6, bundles_per_day=20)
        for line in bundle.video_lines
    ]
    count = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1024**2:
            for statement in seed:
                statement["context"]["extensions"][_OLI + "page_attempt_guid"] = (
                    f"attempt-{count:x}"
                )
                file.write(json.dumps(statement, separators=(",", ":")).encode() + b"\n")
                count += 1
    return count


def clickhouse_import(path: Path) -> str:
    """The SQL of ClickHouse's own import: the main columns, from JSONEachRow, by the same rules."""
    context, result = (
        "JSONExtractRaw(context, 'extensions')",
        "JSONExtractRaw(result, 'extensions')",
    )
    columns = {
        "event_id": "if(id != '', lower(id), toString(generateUUIDv4()))",
        "timestamp": "parseDateTime64BestEffort(ts, 3, 'UTC')",
        "user_id": "JSONExtractString(actor, 'account', 'name')",
        "home_page": "JSONExtractString(actor, 'account', 'homePage')",
        "section_id": f"JSONExtractUInt({context}, '{_OLI}section_id')",
        "project_id": f"JSONExtractUInt({context}, '{_OLI}project_id')",
        "publication_id": f"JSONExtractUInt({context}, '{_OLI}publication_id')",
        "page_id": f"JSONExtract({context}, '{_OLI}resource_id', 'Nullable(UInt64)')",
        "attempt_guid": f"JSONExtractString({context}, '{_OLI}page_attempt_guid')",
        "attempt_number": f"toUInt32(JSONExtractUInt({context}, '{_OLI}page_attempt_number'))",
        "content_element_id": f"JSONExtractString({context}, '{_OLI}content_element_id')",
        "registration": "registration",
        "verb_id": "JSONExtractString(verb, 'id')",
        "verb": "splitByChar('/', JSONExtractString(verb, 'id'))[-1]",
        "video_url": "JSONExtractString(object, 'id')",
        "video_title": "JSONExtractString(object, 'definition', 'name', 'en-US')",
        "video_time": f"JSONExtract({result}, '{_VIDEO}time', 'Nullable(Float64)')",
        "video_length": f"JSONExtract({context}, '{_VIDEO}length', 'Nullable(Float64)')",
        "video_progress": f"JSONExtract({result}, '{_VIDEO}progress', 'Nullable(Float64)')",
        "video_played_segments": f"JSONExtractString({result}, '{_VIDEO}played-segments')",
        "source_file": "_path",
        "source_line": "toUInt32(rowNumberInAllBlocks())",
    }
    structure = ", ".join(
        f"{name} String" for name in ("id", "actor", "verb", "object", "result", "context")
    )
    return (
        f"INSERT INTO {DATABASE}.video_events ({', '.join(columns)})"
        f" SELECT {', '.join(f'{sql} AS {name}_' for name, sql in columns.items())}"
        f" FROM (SELECT *, timestamp AS ts, _path FROM file('{path}', JSONEachRow, '{structure},"
        " registration String, timestamp String'))"
        " SETTINGS max_threads = 1, max_insert_threads = 1, max_parsing_threads = 1,"
        " input_format_parallel_parsing = 0, input_format_json_read_objects_as_strings = 1,"
        " input_format_skip_unknown_fields = 1"
    )


def load() -> None:
    """Load the object in this process, and print the time and memory it took."""
    from xapi_etl_processor.lambda_function import handler

    handler({"health_check": True})
    handler({"bucket": BUCKET, "key": "section/1/video/small.jsonl", "force_reprocess": True})
    idle = _peak_megabytes()
    started, used = time.perf_counter(), time.process_time()
    answer = handler({"bucket": BUCKET, "key": KEY, "force_reprocess": True})
    result = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "idle_megabytes": idle,
        "above_idle_megabytes": _peak_megabytes() - idle,
        "statements": json.loads(answer["body"])["video_events_processed"],
    }
    print(json.dumps(result))


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Generate an object, and load it both ways in turn."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load()
        return
    from xapi_etl_processor.clickhouse_client import ClickHouse
    from xapi_etl_processor.config import Settings

    with tempfile.TemporaryDirectory() as folder, process.cloud(BUCKET) as s3:
        clickhouse = ClickHouse(Settings.from_env(os.environ))
        file = Path(folder, "merged.jsonl")
        count = make_file(file, options.megabytes)
        s3.upload_file(str(file), BUCKET, KEY)
        with file.open("rb") as lines:
            line = lines.readline()
        s3.put_object(Bucket=BUCKET, Key="section/1/video/small.jsonl", Body=line)
        size = file.stat().st_size
        print(f"{count:,} statements, {size / 1024**2:.0f} MB, {size / count:.0f} bytes each")
        _compare(clickhouse, file, count)


def _compare(clickhouse: Any, file: Path, count: int) -> None:
    clickhouse_rates, loader_rates = [], []
    print(f"{'':24}{'statements/s':>14}{'CPU s':>8}{'above idle':>12}")
    for _ in range(ROUNDS):
        clickhouse.query(f"TRUNCATE TABLE {DATABASE}.video_events")
        started = time.perf_counter()
        clickhouse.query(clickhouse_import(file))
        clickhouse_rates.append(count / (time.perf_counter() - started))
        print(f"{'ClickHouse, one thread':24}{clickhouse_rates[-1]:>14,.0f}")
        clickhouse.query(f"TRUNCATE TABLE {DATABASE}.video_events")
        finished = subprocess.run(
            [sys.executable, "-m", "benchmarks.throughput", "--load"],
            check=True,
            stdout=subprocess.PIPE,
        )
        result = json.loads(finished.stdout.splitlines()[-1])
        assert result["statements"] == count
        loader_rates.append(count / result["seconds"])
        print(
            f"{'this loader, over TCP':24}{loader_rates[-1]:>14,.0f}{result['cpu_seconds']:>8.1f}"
            f"{result['above_idle_megabytes']:>9.0f} MB"
        )
    ratio = statistics.median(loader_rates) / statistics.median(clickhouse_rates)
    print(f"ratio of the medians, this loader to ClickHouse: {ratio:.2f}")


if __name__ == "__main__":
    main()
