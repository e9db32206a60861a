"""Evaluates CloudWatch alarms as AWS documents it, from what services and the function measure.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "SampleCount": len,
    "Average": lambda values: sum(values) / len(values),
    "Minimum": min,
    "Maximum": max,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


class Sample(NamedTuple):
    """One value of a metric, `ago` seconds before the alarm is evaluated."""

    ago: float
    namespace: str
    name: str
    dimensions: Mapping[str, str]
    value: float


def is_raised(alarm: Mapping[str, Any], samples: Iterable[Sample]) -> bool:
    """Whether the alarm is in the state ALARM with these samples and no others."""
    known = list(samples)
    compare = _COMPARISONS[alarm["ComparisonOperator"]]
    periods = int(alarm["EvaluationPeriods"])
    if alarm["TreatMissingData"] == "ignore":
        # The state is kept until there are data again.
        minutes = range(int(max((one.ago for one in known), default=0) / 60) + 1)
        latest = (_value(alarm, known, period) for period in minutes)
        last = next((value for value in latest if value is not None), None)
        return last is not None and compare(last, float(alarm["Threshold"]))
    missing = {"breaching": True, "notBreaching": False}[alarm["TreatMissingData"]]
    values = [_value(alarm, known, period) for period in range(periods)]
    breaching = [missing if v is None else compare(v, float(alarm["Threshold"])) for v in values]
    return sum(breaching) >= int(alarm.get("DatapointsToAlarm", periods))


def watched(alarm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Namespace, name, dimensions, statistic and period of each metric that an alarm reads."""
    stats = [item["MetricStat"] for item in alarm.get("Metrics", ()) if "MetricStat" in item]
    flat = [
        {**stat["Metric"], "Statistic": stat["Stat"], "Period": stat["Period"]} for stat in stats
    ]
    return flat or [dict(alarm)]


def _value(alarm: Mapping[str, Any], samples: list[Sample], period: int) -> float | None:
    if "Metrics" not in alarm:
        return _statistic(dict(alarm), samples, period)
    queries = {item["Id"]: item for item in alarm["Metrics"]}
    (returned,) = [item for item in queries.values() if item.get("ReturnData", True)]
    stats = [item for item in alarm["Metrics"] if "MetricStat" in item]
    values = {
        item["Id"]: _statistic(metric, samples, period)
        for item, metric in zip(stats, watched(alarm), strict=True)
    }
    if "FILL" not in returned["Expression"] and None in values.values():
        return None
    functions = {"FILL": lambda value, filler: filler if value is None else value}
    return float(eval(returned["Expression"], functions, values))  # noqa: S307  # our own template


def _statistic(metric: dict[str, Any], samples: list[Sample], period: int) -> float | None:
    wanted = {item["Name"]: item["Value"] for item in metric["Dimensions"]}
    start = period * int(metric["Period"])
    values = [
        sample.value
        for sample in samples
        if (sample.namespace, sample.name) == (metric["Namespace"], metric["MetricName"])
        and sample.dimensions == wanted
        and start < sample.ago <= start + int(metric["Period"])
    ]
    return _STATISTICS[metric["Statistic"]](values) if values else None
