"""The dashboards' files, and what Grafana and its ClickHouse data source make of their queries.

Variables as in Grafana's "Variable syntax", and macros as in the data source's "Macros":
https://grafana.com/docs/grafana/latest/visualizations/dashboards/variables/variable-syntax/ and
https://grafana.com/docs/plugins/grafana-clickhouse-datasource/latest/query-editor/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

FOLDER = Path(__file__).parents[2] / "dashboards"
INSTRUCTORS, OPERATORS = "grafana-instructors.json", "grafana-operators.json"
DASHBOARDS = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

Panel = dict[str, Any]

FORMATS: dict[str, Callable[[str], str]] = {
    "percentencode": lambda value: quote(value, safe=""),
    # These do not escape backslashes, which ClickHouse reads as escapes: no query may use them.
    "raw": lambda value: value,
    "singlequote": lambda value: "'" + value.replace("'", "\\'") + "'",
    "sqlstring": lambda value: "'" + value.replace("'", "''") + "'",
}


@dataclass(frozen=True)
class Range:
    """The time range that was chosen."""

    start: datetime
    end: datetime

    def days(self, column: str) -> str:
        """$__dateFilter(column)."""
        start, end = self.start.date(), self.end.date()
        return f"{column} >= toDate('{start}') AND {column} <= toDate('{end}')"

    def seconds(self, column: str) -> str:
        """$__timeFilter(column)."""
        start, end = int(self.start.timestamp()), int(self.end.timestamp())
        return f"{column} >= toDateTime({start}) AND {column} <= toDateTime({end})"


def sent(sql: str, variables: dict[str, str], chosen: Range) -> str:
    """The query as ClickHouse gets it.

    Raises KeyError for a variable or format, and ValueError for a macro, that is not known here.
    """

    def value(found: re.Match[str]) -> str:
        return FORMATS[found["format"] or "raw"](variables[found["name"]])

    # Variables first, in the browser; then macros, in the data source.
    sql = re.sub(r"\$\{(?P<name>\w+)(?::(?P<format>\w+))?\}", value, sql)
    sql = re.sub(r"\$__dateFilter\((\w+)\)", lambda found: chosen.days(found[1]), sql)
    sql = re.sub(r"\$__timeFilter\((\w+)\)", lambda found: chosen.seconds(found[1]), sql)
    if left := re.search(r"\$\w+|\[\[\w+", sql):
        msg = f"{left[0]} is not known here: add it to tests/support/grafana.py"
        raise ValueError(msg)
    return sql


def panels(name: str) -> list[Panel]:
    """The panels of a dashboard that show data."""
    return [panel for panel in DASHBOARDS[name]["panels"] if "targets" in panel]
