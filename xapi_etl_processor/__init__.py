"""xAPI video statements from S3 into ClickHouse: none lost, none doubled, no silent success."""

__version__ = "0.2.0"
