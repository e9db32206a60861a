"""Lambda's entry point. The template's handler is index.handler, as its inline code requires."""

from xapi_etl_processor.lambda_function import handler

__all__ = ["handler"]
