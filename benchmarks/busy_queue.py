"""moto's S3 and SQS as local/aws.py serves them, with a queue for thousands of messages.

moto looks at each message of a queue for every message that is sent, received or deleted, two
receivers may get the same one, and one that is sent during a deletion may be lost.
"""

from __future__ import annotations

import sys
import time
from itertools import islice
from threading import Lock
from typing import Any

from moto.sqs import models
from moto.sqs.exceptions import ReceiptHandleIsInvalid

from local import aws

_receiving = Lock()
_receive = models.SQSBackend.receive_message


def _receive_alone(*arguments: Any, **named: Any) -> list[models.Message]:
    with _receiving:
        return _receive(*arguments, **named)


def _first_visible(queue: models.Queue) -> list[models.Message]:
    """As many as one request can receive."""
    now = time.time() * 1000
    return list(islice((one for one in queue._messages if one.visible_at < now), 10))


def _delete(queue: models.Queue, receipt_handle: str) -> None:
    # A copy, since other threads add messages. Those that were received are at its beginning.
    for message in list(queue._messages):
        if message.had_receipt_handle(receipt_handle):
            queue.pending_messages.discard(message)
            queue._messages.remove(message)
            return
    raise ReceiptHandleIsInvalid


def main() -> int:
    """Serve until standard input ends, as local.aws does."""
    for patched, name, own in (
        (models.SQSBackend, "receive_message", _receive_alone),
        (models.Queue, "messages", property(_first_visible)),
        (models.Queue, "delete_message", _delete),
    ):
        setattr(patched, name, own)
    # Those that nobody asks for, and that would be counted for each message.
    models.Queue.BASE_ATTRIBUTES = [
        name for name in models.Queue.BASE_ATTRIBUTES if not name.startswith("Approximate")
    ]
    return aws.main()


if __name__ == "__main__":
    sys.exit(main())
