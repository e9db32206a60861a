"""Has the stack's Lambda function answer a bulk request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from xapi_etl_processor.errors import BadRequest, RemoteFailed

_ANSWER_SECONDS = 930
"""How long an answer is waited for. Lambda's limit for an invocation is 900 s."""


def invoke(name: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The body that the function answers; raises BadRequest for status 400, and RemoteFailed if the
    function cannot be invoked or has failed.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # By default, botocore invokes it a second time after a minute.
    config = Config(read_timeout=_ANSWER_SECONDS, retries={"total_max_attempts": 1})
    try:
        reply = boto3.client("lambda", config=config).invoke(
            FunctionName=name, Payload=json.dumps(payload).encode()
        )
        answer = json.loads(reply["Payload"].read())
    except (BotoCoreError, ClientError) as error:
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
