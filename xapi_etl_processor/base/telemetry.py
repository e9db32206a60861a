"""Structured logs and CloudWatch metrics, by AWS Lambda Powertools.

What may be logged: keys, counts, line numbers, reasons. Never: a statement, an actor, a secret.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

NAMESPACE = "XapiEtlProcessor"

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

COUNTERS = (
    "events_processed",
    "video_events_processed",
    "rejected_lines",
    "timestamps_replaced",
    "dead_letters",
)
"""The counters of an answer that are metrics too."""

OBJECTS_MISSING = "objects_missing"
"""Only verifications with `continue` emit it, as the scheduled one has; a 0 from elsewhere would
look like "nothing missing"."""

UNFINISHED = "verifications_unfinished"
"""1 for such a verification that did not compare everything, else 0."""

SHOWN_VALUE = 80
"""Characters of a caller's value that an error message repeats. Our limit."""

# Settings checks and sets the level; Powertools would refuse a wrong one at import.
logger = Logger(service="xapi-etl-processor", level="INFO", use_rfc3339=True)

# The driver logs a traceback for every failed connection; our own error says it once.
logging.getLogger("clickhouse_driver").setLevel(logging.ERROR)


def set_log_level(environ: Mapping[str, str], default: str) -> None:
    """Log at the level that LOG_LEVEL names, or at the default if it names none."""
    # Settings refuses an invalid one later, and that error must be logged too.
    level = environ.get("LOG_LEVEL", "").strip().upper()
    wanted = level if level in LOG_LEVELS else default
    # Setting it takes half a millisecond: it empties the caches of all loggers.
    if logging.getLevelName(logger.log_level) != wanted:
        logger.setLevel(wanted)


def shown(value: Any) -> str:
    """A caller's value as an error message may repeat it: a short text, or only its kind."""
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    text = repr(value)
    return text if len(text) <= SHOWN_VALUE else f"{text[:SHOWN_VALUE]}..."


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun or verb: 1 line, 2,000 lines; of "was" and "were", 1 was."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def describe_defect(error: Exception) -> str:
    """Type and place of an unexpected error; its own text is left out, as it may hold data."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    lines = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__} at {lines}: report this as a defect"


def emit(body: dict[str, Any], mode: str, environment: str, success: bool) -> None:
    """Print one invocation's metrics in CloudWatch's embedded format."""
    metrics = EphemeralMetrics(namespace=NAMESPACE)
    metrics.add_dimension("environment", environment)
    metrics.add_dimension("processing_mode", mode)
    if mode != "health_check":
        for name in COUNTERS:
            metrics.add_metric(name, MetricUnit.Count, body.get(name, 0))
    # Of a part of the bucket, they would end the alarm of the whole.
    if body.get("continue"):
        unfinished = not body["complete"] or bool(body["failures"])
        metrics.add_metric(UNFINISHED, MetricUnit.Count, int(unfinished))
        metrics.add_metric(OBJECTS_MISSING, MetricUnit.Count, body[OBJECTS_MISSING])
    metrics.add_metric("success", MetricUnit.Count, int(success))
    metrics.flush_metrics()
