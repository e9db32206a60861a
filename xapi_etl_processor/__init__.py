"""xAPI video statements from S3 into ClickHouse: none lost, none doubled, no silent success."""

__version__ = "0.2.0"

import os

# Without this, importing the driver builds a table of all days from 1900 to 2299. It must be set
# before the import.
os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "lazy")
