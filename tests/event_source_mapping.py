"""Lambda's event source mapping for SQS, which moto lacks: by the rules of AWS's documentation.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3

ROUNDS = 50
"""A bound: every message that fails is a dead letter long before."""


@dataclass
class Delivered:
    """What one invocation was given and what became of it."""

    ids: list[str]
    deleted: list[str]


class EventSourceMapping:
    """Receives, invokes, and deletes what succeeded, as the mapping in the account says."""

    def __init__(self, mapping_id: str) -> None:
        functions = boto3.client("lambda")
        self.functions = functions
        self.sqs: Any = boto3.client("sqs")
        self.mapping = functions.get_event_source_mapping(UUID=mapping_id)
        self.queue = self.sqs.get_queue_url(
            QueueName=self.mapping["EventSourceArn"].rpartition(":")[2]
        )["QueueUrl"]
        self.reports = "ReportBatchItemFailures" in self.mapping.get("FunctionResponseTypes", ())

    def run(self) -> list[Delivered]:
        """Deliver until nothing is left to deliver; time between two tries is passed over."""
        done: list[Delivered] = []
        while messages := self._receive():
            assert len(done) < ROUNDS, "messages come again without an end"
            done.append(self._deliver(messages))
        return done

    def run_once(self) -> None:
        """Deliver what is there now, once."""
        self._deliver(self._receive())

    def _receive(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        while len(messages) < self.mapping["BatchSize"]:
            got = self.sqs.receive_message(
                QueueUrl=self.queue,
                MaxNumberOfMessages=min(10, self.mapping["BatchSize"] - len(messages)),
                AttributeNames=["All"],
            ).get("Messages", [])
            if not got:
                break
            messages += got
        return messages

    def _deliver(self, messages: list[dict[str, Any]]) -> Delivered:
        answer = self.functions.invoke(
            FunctionName=self.mapping["FunctionArn"],
            Payload=json.dumps({"Records": [self._record(message) for message in messages]}),
        )
        ids = [message["MessageId"] for message in messages]
        failed = failed_messages(ids, answer, reports=self.reports)
        deleted = []
        for message in messages:
            handle = message["ReceiptHandle"]
            if message["MessageId"] in failed:
                # It would stay unseen for the visibility timeout.
                self.sqs.change_message_visibility(
                    QueueUrl=self.queue, ReceiptHandle=handle, VisibilityTimeout=0
                )
            else:
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=handle)
                deleted.append(message["MessageId"])
        return Delivered(ids, deleted)

    def _record(self, message: dict[str, Any]) -> dict[str, Any]:
        return {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": message["Body"],
            "attributes": message["Attributes"],
            "messageAttributes": {},
            "md5OfBody": message["MD5OfBody"],
            "eventSource": "aws:sqs",
            "eventSourceARN": self.mapping["EventSourceArn"],
            "awsRegion": self.sqs.meta.region_name,
        }


def failed_messages(ids: list[str], answer: Any, *, reports: bool) -> set[str]:
    """Which messages of a batch Lambda keeps, by what the function answered."""
    if answer.get("FunctionError"):
        return set(ids)
    if not reports:
        return set()
    try:
        said = json.loads(answer["Payload"].read() or b"null")
    except ValueError:
        return set(ids)
    if said is None or (isinstance(said, dict) and not said.get("batchItemFailures")):
        return set()
    try:
        named = [item["itemIdentifier"] for item in said["batchItemFailures"]]
    except (KeyError, TypeError):
        return set(ids)
    known = all(isinstance(name, str) and name in ids for name in named)
    return set(named) if known else set(ids)
