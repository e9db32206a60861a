"""Lambda's event source mapping for SQS, which moto lacks, as AWS documents it.

https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import boto3

ROUNDS = 50
"""A bound on deliveries: every failing message becomes a dead letter long before."""


@dataclass
class Delivered:
    """The messages of one invocation, and those of them that were deleted."""

    ids: list[str]
    deleted: list[str]


class EventSourceMapping:
    """Receives, invokes and deletes what succeeded, as configured in the account."""

    def __init__(self, mapping_id: str) -> None:
        functions = boto3.client("lambda")
        self.functions = functions
        self.sqs: Any = boto3.client("sqs")
        self.mapping = functions.get_event_source_mapping(UUID=mapping_id)
        self.queue = self.sqs.get_queue_url(
            QueueName=self.mapping["EventSourceArn"].rpartition(":")[2]
        )["QueueUrl"]
        # Else Lambda would take an answer that names failed messages for success.
        assert self.mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]

    def run(self) -> list[Delivered]:
        """Deliver until the queue is empty, without waiting between attempts."""
        deliveries: list[Delivered] = []
        while messages := self._receive():
            assert len(deliveries) < ROUNDS, "messages are delivered without end"
            deliveries.append(self._deliver(messages))
        return deliveries

    def run_once(self) -> None:
        """Deliver one batch."""
        self._deliver(self._receive())

    def _receive(self) -> list[dict[str, Any]]:
        return receive(self.sqs, self.queue, self.mapping["BatchSize"])

    def _deliver(self, messages: list[dict[str, Any]]) -> Delivered:
        records = [as_record(message, self.mapping["EventSourceArn"]) for message in messages]
        answer = self.functions.invoke(
            FunctionName=self.mapping["FunctionArn"],
            Payload=json.dumps({"Records": records}),
        )
        ids = [message["MessageId"] for message in messages]
        raised = "FunctionError" in answer
        failed = set(ids) if raised else failed_messages(ids, answer["Payload"].read())
        deleted = []
        for message in messages:
            handle = message["ReceiptHandle"]
            if message["MessageId"] in failed:
                # Otherwise it would stay invisible for the visibility timeout.
                self.sqs.change_message_visibility(
                    QueueUrl=self.queue, ReceiptHandle=handle, VisibilityTimeout=0
                )
            else:
                self.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=handle)
                deleted.append(message["MessageId"])
        return Delivered(ids, deleted)


def receive(sqs: Any, url: str, most: int) -> list[dict[str, Any]]:
    """Up to this many messages of a queue that are visible now."""
    messages: list[dict[str, Any]] = []
    while len(messages) < most:
        received = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=min(10, most - len(messages)),
            AttributeNames=["All"],
        ).get("Messages", [])
        if not received:
            break
        messages += received
    return messages


def as_record(message: dict[str, Any], queue_arn: str) -> dict[str, Any]:
    """A message as Lambda passes it to the function."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message["Attributes"],
        "messageAttributes": {},
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def failed_messages(ids: list[str], answer: bytes) -> set[str]:
    """The ids of the messages that Lambda keeps in the queue, given what the function returned."""
    try:
        body = json.loads(answer or b"null")
        named = [item["itemIdentifier"] for item in (body or {}).get("batchItemFailures") or ()]
    except (ValueError, AttributeError, KeyError, TypeError):
        return set(ids)
    return set(named) if set(named) <= set(ids) else set(ids)
