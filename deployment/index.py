"""The template's handler is index.handler: CloudFormation's inline placeholder can be no other."""

from xapi_etl_processor.lambda_function import handler

__all__ = ["handler"]
