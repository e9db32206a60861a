"""S3 and ClickHouse on your own machine, for `make run`, `make local` and the tests.

Never in the deployment package.
"""
