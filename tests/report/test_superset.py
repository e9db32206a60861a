"""The file that Superset imports: its charts show the right numbers. `make superset` imports it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from dashboards.for_superset import CHARTS, VIEWS, write
from tests.support.dirty import SECOND_URL, TITLE, URL, Dirty

MINUTES = pytest.approx


def test_each_dataset_has_all_columns_of_its_view(dirty: Dirty) -> None:
    for view, columns in VIEWS.items():
        found = [f"{name} {kind}" for name, kind, *_ in dirty.ask(f"DESCRIBE {view}")]
        found = [re.sub(r"LowCardinality\((\w+)\)|, 'UTC'", r"\1", column) for column in found]
        assert columns.split(", ") == found, view


@pytest.mark.slow
def test_each_chart_shows_the_numbers_of_a_section(dirty: Dirty) -> None:
    """By the table in tests/support/dirty.py, as the dashboards for Grafana show them."""
    shown: dict[str, list[list[Any]]] = {}
    for _, title, _, view, by, metrics, _ in (chart for row in CHARTS for chart in row):
        columns = [*by.split(", ")] if by else []
        # A metric's name is no column's: ClickHouse would read one for the other.
        assert not metrics.keys() & {column.split()[0] for column in VIEWS[view].split(", ")}
        values = [f"{sql} AS `{name}`" for name, sql in metrics.items()]
        sql = f"SELECT {', '.join([*columns, *values])} FROM {view} WHERE section = '2001'"
        order = f" GROUP BY {by} ORDER BY {by}" if by else ""
        shown[title] = dirty.ask(sql + order)
    viewers, minutes, completions, videos, there, stopped, came = shown.values()
    assert viewers == [[8]]
    assert minutes == [[MINUTES(300 / 60)]]
    assert completions == [[1]]
    assert sorted(videos, key=lambda row: -row[2]) == [
        ["", URL, MINUTES(210 / 60), 6, 6, 0, pytest.approx(0.35)],
        [TITLE, SECOND_URL, MINUTES(90 / 60), 2, 2, 1, pytest.approx(0.75)],
    ]
    # Of the first video six and of the second both see the beginning; four of the first are at 15
    # seconds, which two of them play again, and both are at 9 seconds of the second.
    assert [there[n] for n in (5, 15)] == [[5, 8, 0], [15, 6, 2]]
    assert [sum(column) for column in zip(*stopped, strict=True)][1:] == [7, 1]
    assert came == [["2024-03-01", 7, 7], ["2024-03-02", 1, 1]]


def test_the_file_has_the_parts_that_name_each_other(tmp_path: Path) -> None:
    write("clickhouse+native://me@db.example.org/xapi_analytics", f"{tmp_path}/videos.zip")
    with ZipFile(tmp_path / "videos.zip") as zipped:
        parts = {name.split("/", 1)[1]: json.loads(zipped.read(name)) for name in zipped.namelist()}
    kinds: dict[str, list[Any]] = {}
    for name, part in parts.items():
        assert part["version"] == "1.0.0"
        kinds.setdefault(name.split("/")[0], []).append(part)
    ((database,), (dashboard,)) = kinds["databases"], kinds["dashboards"]
    assert database["sqlalchemy_uri"].startswith("clickhouse+native://me@db.example.org/")
    assert {one["database_uuid"] for one in kinds["datasets"]} == {database["uuid"]}
    datasets = {one["uuid"] for one in kinds["datasets"]}
    assert {one["dataset_uuid"] for one in kinds["charts"]} == datasets
    placed = [p for p in dashboard["position"].values() if isinstance(p, dict) and "meta" in p]
    charts = [one["meta"]["uuid"] for one in placed if one["type"] == "CHART"]
    assert sorted(charts) == sorted(one["uuid"] for one in kinds["charts"])
    filters = dashboard["metadata"]["native_filter_configuration"]
    assert {one["targets"][0]["datasetUuid"] for one in filters} <= datasets
