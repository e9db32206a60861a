"""S3 and ClickHouse on your own machine, for `make run`, `make local` and the tests.

Never in the deployment package.
"""

import os
from pathlib import Path

# Without this, importing clickhouse-driver builds a table of all days from 1900 to 2299. It must be
# set before the import.
os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "lazy")

_FOLDER = Path(__file__).parents[1] / ".local"

DATA = _FOLDER / "clickhouse"
"""A person's own ClickHouse data: `make local` serves it, and nothing here deletes it."""

DEMO = _FOLDER / "demo"
"""The demo's ClickHouse data: every `make run` deletes it and makes it again."""

DEMO_REPORT = _FOLDER / "demo-report"
"""The demo's report, as pages for a browser: every `make run` writes it again."""

PORT_VARIABLE = "MAKE_LOCAL_CLICKHOUSE_PORT"
"""The port of the ClickHouse of `make local`; this variable is set there only."""
