"""Send a payload through the function's handler, without a time limit, and print its answer.

Exit code 0 means that all was done, 1 that something failed, 2 that the payload is no JSON or is
answered with 400.

Examples:
  python -m xapi_etl_processor invoke '{"health_check": true}'
  python -m xapi_etl_processor invoke '{"mode": "bulk", "section_id": "2001", "dry_run": true}'
  python -m xapi_etl_processor invoke - < notification.json
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from typing import Any

from xapi_etl_processor.base.errors import BadRequest
from xapi_etl_processor.commands.options import add_command
from xapi_etl_processor.commands.output import FAILED, OK, USAGE, print_json
from xapi_etl_processor.lambda_function import handler


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    summary = "send a payload through the handler and print its answer"
    invoke = add_command(commands, "invoke", _invoke, summary, __doc__)
    invoke.add_argument("payload", metavar="JSON", help="the payload, or - for standard input")


def _invoke(options: argparse.Namespace) -> int:
    payload = _read(options.payload)
    # The handler prints its metrics there.
    with redirect_stdout(sys.stderr):
        answer = handler(payload)
    if "body" not in answer:
        print_json(answer)
        return FAILED if answer["batchItemFailures"] else OK
    status, body = answer["statusCode"], json.loads(answer["body"])
    print_json({"statusCode": status, "body": body})
    if status == 400:
        return USAGE
    return OK if status == 200 and body.get("success", True) else FAILED


def _read(text: str) -> Any:
    """The payload; raises BadRequest if it is no JSON."""
    try:
        return json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
        raise BadRequest(
            f"the payload is not JSON{where}: put it in single quotes, or send a file with"
            " invoke - < FILE"
        ) from None
