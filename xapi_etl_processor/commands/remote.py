"""Has the stack's Lambda function answer a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xapi_etl_processor.base import aws
from xapi_etl_processor.base.errors import BadRequest, RemoteFailed

_CONNECT_SECONDS = 10
"""How long connecting may take. Our limit."""

_ANSWER_SECONDS = 930
"""How long an answer is waited for. Lambda's limit for an invocation is 900 s."""


def invoke(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The body that the function answers; raises BadRequest for status 400, else RemoteFailed."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        # One attempt: a second one would run beside the first.
        function = aws.client("lambda", _CONNECT_SECONDS, _ANSWER_SECONDS, attempts=1)
        reply = function.invoke(FunctionName=name, Payload=json.dumps(payload).encode())
        answer = json.loads(reply["Payload"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise RemoteFailed(f"the function {name} cannot be invoked: {error}") from None
    if "FunctionError" in reply or not isinstance(answer, dict) or "body" not in answer:
        text = answer.get("errorMessage") if isinstance(answer, dict) else None
        raise RemoteFailed(f"the function {name} failed: {text or 'see its log'}")
    try:
        body: dict[str, Any] = json.loads(answer["body"])
        if answer["statusCode"] == 400:
            raise BadRequest(f"the function {name} refuses this: {body['error']}")
        body["stop_reason"]
    except (ValueError, TypeError, LookupError):
        raise RemoteFailed(
            f"{name} is another function, or one of an older version: check its name, and deploy"
            " this version"
        ) from None
    return body
