"""The dashboards' files: Grafana understands them, and shows all that they hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.cog.runtime import panelcfg_config
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.support.grafana import DASHBOARDS, Panel, panels

DATASOURCE = {"type": "grafana-clickhouse-datasource", "uid": "${datasource}"}


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Where the second JSON lacks something that the first has; it may have more."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, value in enumerate(before):
            yield from lost(value, after[number], f"{path}[{number}]")
    elif before != after:
        yield path


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_schema_knows_everything_in_a_dashboard(name: str) -> None:
    register_default_plugins()
    for panel in DASHBOARDS[name]["panels"]:
        assert panel["type"] == "row" or panelcfg_config(panel["type"]), panel["title"]
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARDS[name])))
    # What exported files have besides, for the dialog that imports them.
    assert list(lost(DASHBOARDS[name], understood)) == [".__requires"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_works_with_any_data_source_and_all_its_panels_are_seen(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert len({other["uid"] for other in DASHBOARDS.values()}) == len(DASHBOARDS) == 2
    shown = dashboard["panels"]
    variables = dashboard["templating"]["list"]
    assert dashboard["id"] is None
    assert re.fullmatch(r"[\w-]{8,40}", dashboard["uid"])
    assert variables[0]["type"] == "datasource"
    assert variables[0]["query"] == DATASOURCE["type"]
    sources = [v["datasource"] for v in variables[1:]]
    sources += [s for panel in panels(name) for s in (panel["datasource"], *datasources(panel))]
    assert all(source == DATASOURCE for source in sources)
    assert len({panel["id"] for panel in shown}) == len(shown)
    assert len({panel["title"] for panel in shown}) == len(shown)
    taken: set[tuple[int, int]] = set()
    for panel in shown:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"].endswith("."), panel["title"]
            # Without it, Grafana takes the panel for one of version 6.1, and changes it.
            assert panel["pluginVersion"] == dashboard["__requires"][0]["version"]
        references = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(references)) == len(references)
        assert references or panel["type"] in {"row", "text"}, panel["title"]
    needed = {need["id"] for need in dashboard["__requires"] if need["type"] == "panel"}
    assert needed == {panel["type"] for panel in shown} - {"row"}
    text = json.dumps(dashboard)
    known = {v["name"] for v in variables} | {"__data", "__url_time_range"}
    assert set(re.findall(r"\$\{(\w+)", text)) <= known
    assert set(re.findall(r"/d/([\w-]+)", text)) <= {d["uid"] for d in DASHBOARDS.values()}


def datasources(panel: Panel) -> list[dict[str, str]]:
    """The data source of each query of a panel."""
    return [target["datasource"] for target in panel["targets"]]


UNITS = {
    **dict.fromkeys(("Time watched", "Time played", "Rewatch"), "m"),
    **dict.fromkeys(("Length", "Second", "From", "To"), "dthms"),
    **dict.fromkeys(("Sent", "Worked out"), "s"),
    **dict.fromkeys(("Average share watched", "Disagreement"), "percentunit"),
    "Last statement": "dateTimeAsIso",
}
"""What Grafana calls the unit of a column: minutes, seconds as 0:01:05, seconds, a share of 1."""


@pytest.mark.parametrize("name", DASHBOARDS)
def test_columns_that_are_times_or_shares_are_shown_as_such(name: str) -> None:
    of_panels = {"Time watched and played by day": "m", "From upload to load": "s"}
    for panel in panels(name):
        title, fields = panel["title"], panel["fieldConfig"]
        default = fields["defaults"].get("unit")
        assert default in {of_panels.get(title), "short"}, title
        found = {
            override["matcher"]["options"]: change["value"]
            for override in fields["overrides"]
            for change in override["properties"]
            if change["id"] == "unit"
        }
        named = re.findall(r'AS "([^"]+)"', panel["targets"][0]["rawSql"])
        expected = {column: UNITS[column] for column in named if column in UNITS}
        assert found == ({} if title in of_panels else expected), title
