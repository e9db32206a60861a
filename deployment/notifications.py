"""Adds the stack's notifications to a bucket's, or removes them, and leaves all others alone.

aws s3api get-bucket-notification-configuration --bucket BUCKET >FIRST      and once more, >AGAIN
python3 -m deployment.notifications FIRST AGAIN connect STACK QUEUE_ARN PREFIX

Prints the configuration for `put-bucket-notification-configuration`, or nothing if nothing changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ENDINGS = (".jsonl", ".jsonl.gz")
"""How a bundle's key ends. S3 allows one ending per notification."""

_EVENTS = "s3:ObjectCreated:*"
_QUEUES = "QueueConfigurations"
_KINDS = (_QUEUES, "TopicConfigurations", "LambdaFunctionConfigurations")


class Overlap(Exception):
    """S3 would refuse the configuration: another notification covers the same objects."""


def connected(
    configuration: Mapping[str, Any], stack: str, queue: str, prefix: str
) -> dict[str, Any]:
    """The configuration with notifications to the stack's queue for bundles under the prefix.

    They replace the stack's earlier ones, and any other that names the queue and overlaps, whoever
    made it. Raises Overlap, naming a notification to another receiver: S3 allows one receiver for
    each kind of event on a key.
    """
    changed = disconnected(configuration, stack)
    changed[_QUEUES] = [
        other
        for other in changed.get(_QUEUES, ())
        if other["QueueArn"] != queue or not _overlaps(other, prefix)
    ]
    for other in _notifications(changed):
        if _overlaps(other, prefix):
            raise Overlap(
                f"its notification {other.get('Id', 'without a name')!r} covers the same objects,"
                " and S3 allows only one receiver: let an EventBridge rule send to the stack's"
                " queue (parameter FanOutRuleArn), or an SNS topic to both (FanOutTopicArn);"
                ' docs/operations.md, "Share a bucket\'s notifications", has the steps'
            )
    changed[_QUEUES].extend(
        {
            "Id": _id(stack, ending),
            "QueueArn": queue,
            "Events": [_EVENTS],
            "Filter": {
                "Key": {
                    "FilterRules": [
                        {"Name": "prefix", "Value": prefix},
                        {"Name": "suffix", "Value": ending},
                    ]
                }
            },
        }
        for ending in ENDINGS
    )
    return changed


def disconnected(configuration: Mapping[str, Any], stack: str) -> dict[str, Any]:
    """The configuration without what `connected` added for the stack."""
    ours = {_id(stack, ending) for ending in ENDINGS}
    changed = dict(configuration)
    queues = [c for c in changed.pop(_QUEUES, []) if c.get("Id") not in ours]
    return changed | ({_QUEUES: queues} if queues else {})


def _id(stack: str, ending: str) -> str:
    return f"xapi-etl-processor {stack} {ending}"


def _notifications(configuration: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in _KINDS:
        yield from configuration.get(kind, ())


def _overlaps(other: Mapping[str, Any], prefix: str) -> bool:
    """S3's rule: the same kind of event, and filters that can match the same bundle."""
    if not any(event.startswith("s3:ObjectCreated:") for event in other.get("Events", ())):
        return False
    rules = other.get("Filter", {}).get("Key", {}).get("FilterRules", ())
    filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
    start, end = filters.get("prefix", ""), filters.get("suffix", "")
    return (start.startswith(prefix) or prefix.startswith(start)) and any(
        end.endswith(ending) or ending.endswith(end) for ending in ENDINGS
    )


def _canonical(configuration: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The configuration in a fixed order: S3 returns lists and rules in an order of its own."""
    items = [("", name) for name in configuration if name not in _KINDS]
    for kind in _KINDS:
        for item in configuration.get(kind, ()):
            rules = item.get("Filter", {}).get("Key", {}).get("FilterRules", ())
            flat = {name: value for name, value in item.items() if name != "Filter"}
            flat["rules"] = sorted((rule["Name"].lower(), rule["Value"]) for rule in rules)
            items.append((kind, json.dumps(flat, sort_keys=True)))
    return sorted(items)


def main() -> int:
    """Read a configuration and print the changed one; 1 if another notification overlaps, or two
    readings differ.
    """
    first, again, command, stack, *rest = sys.argv[1:]
    # The aws command prints nothing for a bucket without notifications.
    configuration, same = (json.loads(Path(name).read_text() or "{}") for name in (first, again))
    if _canonical(configuration) != _canonical(same):
        print(
            "read twice, its notifications differ: an answer was cut off, or somebody changes them"
            " at this moment: run the same command again",
            file=sys.stderr,
        )
        return 1
    try:
        changed = (
            connected(configuration, stack, *rest)
            if command == "connect"
            else disconnected(configuration, stack)
        )
    except Overlap as error:
        print(error, file=sys.stderr)
        return 1
    if _canonical(changed) != _canonical(configuration):
        print(json.dumps(changed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
