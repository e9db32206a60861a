"""Write a dashboard for Superset as a file that Superset imports: database, datasets and charts.

    python dashboards/for_superset.py URI FILE

URI is ClickHouse's address as SQLAlchemy writes it; README.md beside this has examples.
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from uuid import NAMESPACE_URL, uuid5
from zipfile import ZipFile

TITLE = "Videos: what is watched"
_DATABASE = "ClickHouse"

VIEWS = {
    "viewer_progress": "section_id UInt64, section String, video_url String, title String,"
    " home_page String, user_id String, video_length Float64, sessions UInt64,"
    " minutes_watched Float64, minutes_played Float64, played UInt8,"
    " share_watched Nullable(Float64), reached Float64, is_completed Bool,"
    " stopped_at Nullable(Float64), first_seen DateTime64(3), last_seen DateTime64(3)",
    "video_engagement": "section_id UInt64, section String, video_url String, title String,"
    " video_length Float64, opened UInt64, played UInt64, sessions UInt64, completions UInt64,"
    " minutes_watched Float64, minutes_played Float64, average_share Nullable(Float64),"
    " first_day Date32, last_day Date32",
    "video_retention": "section_id UInt64, section String, video_url String, video_length Float64,"
    " bucket UInt8, from_second Float64, to_second Float64, viewers UInt64, rewatchers UInt64,"
    " plays UInt64",
    "video_dropoff": "section_id UInt64, section String, video_url String, video_length Float64,"
    " bucket UInt8, from_second Float64, to_second Float64, viewers UInt64, completed UInt64",
    "section_daily": "section_id UInt64, section String, day Date32, opened UInt64, played UInt64,"
    " sessions UInt64, statements UInt64, minutes_watched Float64, minutes_played Float64",
}
"""The datasets, with the columns and types that Superset is told. It does not know Date32."""

_Chart = tuple[int, str, str, str, str, dict[str, str], dict[str, Any]]
CHARTS: list[list[_Chart]] = [
    [
        (4, "Viewers who played", "big_number_total", "viewer_progress", "",
         {"Viewers": "uniqExactIf((home_page, user_id), played)"}, {}),
        (4, "Minutes watched", "big_number_total", "viewer_progress", "",
         {"Minutes": "sum(minutes_watched)"}, {"y_axis_format": ",.0f"}),
        (4, "Completions", "big_number_total", "viewer_progress", "",
         {"Completions": "countIf(is_completed)"}, {}),
    ],
    [
        (12, "Videos, the most watched first", "table", "video_engagement", "title, video_url",
         {"Minutes watched": "sum(minutes_watched)", "Opened": "sum(opened)",
          "Played": "sum(played)", "Completed": "sum(completions)",
          "Average share": "avg(average_share)"},
         {"column_config": {"Average share": {"d3NumberFormat": ".0%"},
                            "Minutes watched": {"d3NumberFormat": ",.0f"}}}),
    ],
    [
        (6, "How many are there in each hundredth of a video, and play it again",
         "echarts_timeseries_line", "video_retention", "bucket",
         {"Viewers": "sum(viewers)", "Play it again": "sum(rewatchers)"}, {}),
        (6, "In which hundredth of a video they stopped for good", "echarts_timeseries_bar",
         "video_dropoff", "bucket",
         {"Before the end": "sum(viewers) - sum(completed)", "Completed": "sum(completed)"},
         {"stack": "Stack"}),
    ],
    [
        (12, "Who came, by day (UTC)", "echarts_timeseries_bar", "section_daily", "day",
         {"Opened": "sum(opened)", "Played": "sum(played)"},
         {"x_axis_time_format": "%Y-%m-%d"}),
    ],
]  # fmt: skip
"""Rows of charts: width of 12, title, kind, dataset, columns, metrics, and more of their form. The
names of metrics are no columns': ClickHouse would read one for the other."""


def _uuid(name: str) -> str:
    """An id that depends on the name alone, so that a later import replaces an earlier one."""
    return str(uuid5(NAMESPACE_URL, f"xapi-etl-processor/{name}"))


def _database(uri: str) -> dict[str, Any]:
    named = {"database_name": _DATABASE, "uuid": _uuid("database")}
    return named | {"sqlalchemy_uri": uri, "extra": {}}


def _dataset(view: str) -> dict[str, Any]:
    columns = [column.split() for column in VIEWS[view].split(", ")]
    return {
        "table_name": view,
        "uuid": _uuid(view),
        "database_uuid": _uuid("database"),
        "metrics": [],
        "columns": [
            {"column_name": name, "type": kind, "is_dttm": kind.startswith("Date")}
            for name, kind in columns
        ],
    }


def _chart(chart: _Chart) -> dict[str, Any]:
    _, title, kind, view, by, sql, more = chart
    metrics = [
        {"expressionType": "SQL", "sqlExpression": text, "label": label, "optionName": label}
        for label, text in sql.items()
    ]
    columns: list[Any] = by.split(", ") if by else []
    form = {
        "viz_type": kind,
        "metric": metrics[0],
        "metrics": metrics,
        "groupby": columns,
        "query_mode": "aggregate",
        "time_range": "No filter",
        "row_limit": 1000,
        **more,
    }
    query = {"columns": columns, "metrics": metrics, "row_limit": 1000, "filters": []}
    if kind == "table":
        form["server_page_length"] = 10
        query["orderby"] = [[metrics[0], False]]
    elif columns:
        # Without a time grain: Superset would name the day of a day like its column, in a way that
        # ClickHouse refuses.
        form |= {"x_axis": by, "groupby": [], "time_grain_sqla": None, "show_legend": True}
    context = {"datasource": {}, "queries": [query], "form_data": form, "result_type": "full"}
    return {
        "slice_name": title,
        "viz_type": kind,
        "params": form,
        "query_context": json.dumps(context | {"result_format": "json", "force": False}),
        "uuid": _uuid(title),
        "dataset_uuid": _uuid(view),
    }


def _dashboard() -> dict[str, Any]:
    rows = [f"ROW-{number}" for number in range(len(CHARTS))]
    position: dict[str, Any] = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": rows, "parents": ["ROOT_ID"]},
    }
    for row, charts in zip(rows, CHARTS, strict=True):
        inside = []
        for width, title, kind, *_ in charts:
            meta = {"chartId": len(position), "uuid": _uuid(title), "sliceName": title}
            height = 25 if kind == "big_number_total" else 50
            inside.append(name := f"CHART-{len(position)}")
            position[name] = {
                "type": "CHART",
                "id": name,
                "children": [],
                "parents": ["ROOT_ID", "GRID_ID", row],
                "meta": meta | {"width": width, "height": height},
            }
        position[row] = {
            "type": "ROW",
            "id": row,
            "children": inside,
            "parents": ["ROOT_ID", "GRID_ID"],
            "meta": {"background": "BACKGROUND_TRANSPARENT"},
        }
    filters = [_filter("Section", "section", first=True), _filter("Video", "video_url")]
    return {
        "dashboard_title": TITLE,
        "uuid": _uuid("dashboard"),
        "position": position,
        "metadata": {"native_filter_configuration": filters},
    }


def _filter(name: str, column: str, *, first: bool = False) -> dict[str, Any]:
    """A filter at the side; `first`: one value is always chosen, at the beginning the first."""
    return {
        "id": f"NATIVE_FILTER-{column}",
        "name": name,
        "type": "NATIVE_FILTER",
        "filterType": "filter_select",
        "targets": [{"datasetUuid": _uuid("viewer_progress"), "column": {"name": column}}],
        "controlValues": {"multiSelect": not first, "enableEmptyFilter": first,
                          "defaultToFirstItem": first},
        "requiredFirst": first,
        "defaultDataMask": {"filterState": {}, "extraFormData": {}},
        "cascadeParentIds": [] if first else ["NATIVE_FILTER-section"],
        "scope": {"rootPath": ["ROOT_ID"], "excluded": []},
    }  # fmt: skip


def write(uri: str, path: str) -> None:
    """Write the file. It is YAML in a zip; JSON is YAML too."""
    files = {
        "metadata": {"type": "Dashboard", "timestamp": "2000-01-01T00:00:00+00:00"},
        f"databases/{_DATABASE}": _database(uri),
        **{f"datasets/{_DATABASE}/{view}": _dataset(view) for view in VIEWS},
        **{f"charts/{_uuid(c[1])}": _chart(c) for row in CHARTS for c in row},
        "dashboards/videos": _dashboard(),
    }
    with ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(f"videos/{name}.yaml", json.dumps({"version": "1.0.0"} | content))


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    _parser.add_argument("uri", metavar="URI")
    _parser.add_argument("file", metavar="FILE")
    _given = _parser.parse_args()
    write(_given.uri, _given.file)
