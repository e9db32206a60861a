"""A queue that invokes the real handler, in simulated time: hours pass in seconds.

moto's SQS counts deliveries and honours the visibility timeouts that the handler sets; its clock is
replaced. What the handler's answer means is decided by Lambda's rules (tests.event_source_mapping).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid

from tests.support.event_source_mapping import as_record, failed_messages, receive
from tests.support.samples import context
from tests.support.template import TEMPLATE
from xapi_etl_processor.base.config import Settings
from xapi_etl_processor.lambda_function import handler
from xapi_etl_processor.storage import ledger

ACCOUNT, REGION = "123456789012", "us-east-1"
START_MS = 1_800_000_000_000
MINUTE, HOUR = 60, 3600


@dataclass
class SimulatedQueue:
    """A queue of the stack and its dead-letter queue; `now` is in seconds since the start."""

    name: str
    resource: str = "Queue"
    batch: int = 100
    """The most messages of an invocation."""
    now: float = 0.0
    deliveries: list[float] = field(default_factory=list)
    """When the function was invoked."""

    def __post_init__(self) -> None:
        self.sqs: Any = boto3.client("sqs")
        self.dead_url = self.sqs.create_queue(QueueName=f"{self.name}-dead")["QueueUrl"]
        properties = TEMPLATE["Resources"][self.resource]["Properties"]
        redrive = {
            "deadLetterTargetArn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}-dead",
            "maxReceiveCount": properties["RedrivePolicy"]["maxReceiveCount"],
        }
        self.url = self.sqs.create_queue(
            QueueName=self.name,
            Attributes={
                "RedrivePolicy": json.dumps(redrive),
                "VisibilityTimeout": str(
                    TEMPLATE["Mappings"]["VisibilityTimeout"]["300"]["Seconds"]
                ),
                "MessageRetentionPeriod": str(properties["MessageRetentionPeriod"]),
            },
        )["QueueUrl"]

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self.name}"

    def send(self, body: Any) -> None:
        """Send a message; a body that is not text is sent as JSON."""
        text = body if isinstance(body, str) else json.dumps(body)
        self.sqs.send_message(QueueUrl=self.url, MessageBody=text)

    def notify_of(self, bucket: str) -> None:
        """Have S3 notify the queue of uploads to a bucket."""
        wanted: Any = {"QueueArn": self.arn, "Events": ["s3:ObjectCreated:*"]}
        boto3.client("s3").put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [wanted]}
        )

    def receive(self, most: int = 100) -> list[dict[str, Any]]:
        """The records of what is visible now, as Lambda passes them to the function."""
        return [as_record(message, self.arn) for message in receive(self.sqs, self.url, most)]

    def invoke(
        self,
        records: list[dict[str, Any]],
        seconds_left: float = 300,
        clock: Callable[[], float] = time.monotonic,
    ) -> Any:
        """The handler's answer to a batch; its clock decides how much time it has left."""
        self.deliveries.append(self.now)
        event = json.loads(json.dumps({"Records": records}))
        return handler(event, context(seconds_left, clock))

    def deliver(
        self, seconds_left: float = 300, clock: Callable[[], float] = time.monotonic
    ) -> list[str]:
        """Invoke the function with what is visible, if anything is; gives the bodies that stay.

        What succeeded is deleted. Everything else keeps the visibility timeout that it has.
        """
        if not (records := self.receive(self.batch)):
            return []
        answer = json.dumps(self.invoke(records, seconds_left, clock)).encode()
        failed = failed_messages([record["messageId"] for record in records], answer)
        for record in records:
            if record["messageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=record["receiptHandle"])
        return [record["body"] for record in records if record["messageId"] in failed]

    def run_until(self, end: float) -> None:
        """Deliver each message when it becomes visible, until `end`; then set the clock to it."""
        while self.now < end:
            self.deliver()
            self.now = min(end, self.next_visible())

    def next_visible(self) -> float:
        """When the next message can be delivered; infinite if the queue is empty."""
        messages = models.sqs_backends[ACCOUNT][REGION].queues[self.name]._messages
        # To moto a message is still invisible in the millisecond in which its timeout ends.
        visible = [max(m.visible_at, m.delayed_until) for m in messages]
        moments = [(at + 1 - START_MS) / 1000 for at in visible]
        return max(self.now, min(moments, default=float("inf")))

    @property
    def is_empty(self) -> bool:
        """Whether no message is left, visible or not."""
        return self.next_visible() == float("inf")

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters, with their attributes; they stay where they are."""
        answer: dict[str, Any] = self.sqs.receive_message(
            QueueUrl=self.dead_url,
            MaxNumberOfMessages=10,
            AttributeNames=["All"],
            MessageAttributeNames=["All"],
            VisibilityTimeout=0,
        )
        return list(answer.get("Messages", ()))

    def dead_count(self) -> int:
        """How many dead letters there are."""
        return len(models.sqs_backends[ACCOUNT][REGION].queues[f"{self.name}-dead"]._messages)

    def reasons(self) -> list[str]:
        """Why each dead letter is one."""
        return [m["MessageAttributes"]["reason"]["StringValue"] for m in self.dead_letters()]


def simulated_queue(settings: Settings, patch: pytest.MonkeyPatch) -> SimulatedQueue:
    """A queue for these settings' function, whose environment then names it."""
    return _simulated(
        SimulatedQueue(f"queue-{settings.clickhouse_database}"), patch, "SQS_QUEUE_URL"
    )


def simulated_backfill(settings: Settings, patch: pytest.MonkeyPatch) -> SimulatedQueue:
    """The same for the queue of a backfill, which invokes the function with one message."""
    queue = SimulatedQueue(f"backfill-{settings.clickhouse_database}", "BackfillQueue", batch=1)
    return _simulated(queue, patch, "BACKFILL_QUEUE_URL")


def _simulated(queue: SimulatedQueue, patch: pytest.MonkeyPatch, variable: str) -> SimulatedQueue:
    patch.setattr(models, "unix_time_millis", lambda: START_MS + queue.now * 1000)
    patch.setattr(models, "unix_time", lambda: START_MS / 1000 + queue.now)
    patch.setattr(ledger, "_now_ms", lambda: int(START_MS + queue.now * 1000))
    patch.setattr(models.SQSBackend, "change_message_visibility", _change_visibility)
    patch.setenv(variable, queue.url)
    patch.setenv("SQS_DEAD_LETTER_QUEUE_URL", queue.dead_url)
    return queue


def _change_visibility(
    backend: models.SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
) -> None:
    """A message may be invisible for 12 hours. moto counts them from its sending, SQS from each
    delivery: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html
    """
    queue = backend.get_queue(queue_name)
    for message in queue._messages:
        if message.had_receipt_handle(receipt_handle):
            message.change_visibility(visibility_timeout)
            return
    raise ReceiptHandleIsInvalid
