"""The charts of docs/performance.md and docs/scaling.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import altair as alt
import vl_convert

from benchmarks.report import Results
from benchmarks.setting import ROOT

FILE = ROOT / "docs/performance.svg"
_OURS, _OTHERS, _TEXT = "#0b6e4f", "#9aa5b1", "#1f2933"


class Panel(NamedTuple):
    """Curves by name, each of points (x, y), with the texts of the axes."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    logarithmic: bool = False
    x_scale: Literal["linear", "log"] = "linear"


def write(results: Results) -> None:
    """Draw this loader beside its yardsticks. Dark on white, to be readable on any page."""
    large, small = results["large-plain"], results["small-10-clickhouse"]
    statement = [
        ("splitting lines alone", results["large-split"].yardstick),
        ("decoding alone", results["large-decode"].yardstick),
        ("ClickHouse's importer, one thread", results["large-clickhouse"].yardstick),
        ("json.loads, tuples, INSERT", large.yardstick),
        ("this loader", large.ours),
    ]
    bundle = [
        ("ClickHouse's importer, s3()", small.yardstick),
        ("boto3 that only gets them", results["small-10-boto3"].yardstick),
        ("this loader", small.ours),
    ]
    chart = alt.vconcat(
        _bars("One large object: µs of processor a statement", statement),
        _bars("Bundles of 10 statements: ms of processor a bundle", bundle),
        spacing=28,
    )
    _save(chart, FILE)


def draw_curves(file: Path, panels: Sequence[Panel]) -> None:
    """Draw curves below each other."""
    _save(alt.vconcat(*map(_curves, panels), spacing=28), file)


def _save(chart: Any, file: Path) -> None:
    styled = (
        chart.configure(background="white", padding=16, font="sans-serif")
        .configure_view(stroke=None)
        .configure_title(anchor="start", color=_TEXT, fontSize=14)
        .configure_axis(labelColor=_TEXT, labelFontSize=12, labelLimit=260)
    )
    file.write_text(vl_convert.vegalite_to_svg(styled.to_json()) + "\n", encoding="utf-8")


def _curves(panel: Panel) -> Any:
    values = [
        {"x": x, "y": y, "name": name} for name, points in panel.lines.items() for x, y in points
    ]
    scale = alt.Scale(type="log" if panel.logarithmic else "linear", nice=False)
    return (
        alt.Chart(alt.InlineData(values), title=panel.title, width=560, height=180)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X(
                "x:Q",
                title=panel.x,
                scale=alt.Scale(type=panel.x_scale, nice=False),
                axis=alt.Axis(format="~s"),
            ),
            y=alt.Y("y:Q", title=panel.y, scale=scale, axis=alt.Axis(format="~s")),
            color=alt.Color(
                "name:N",
                title=None,
                sort=list(panel.lines),
                scale=alt.Scale(range=[_OURS, "#b5651d", "#3b5b92", _OTHERS]),
                legend=alt.Legend(orient="top", labelFontSize=12, labelLimit=400),
            ),
        )
    )


def _bars(title: str, rows: Sequence[tuple[str, float | None]]) -> Any:
    values = [{"who": who, "took": took, "ours": who == "this loader"} for who, took in rows]
    base = alt.Chart(alt.InlineData(values), title=title, width=420).encode(
        y=alt.Y(
            "who:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, minExtent=210)
        ),
        x=alt.X("took:Q", title=None, axis=None),
    )
    bars = base.mark_bar(height=18).encode(
        color=alt.Color(
            "ours:N",
            legend=None,
            scale=alt.Scale(domain=[True, False], range=[_OURS, _OTHERS]),
        )
    )
    labels = base.mark_text(align="left", dx=5, color=_TEXT, fontSize=12).encode(
        text=alt.Text("took:Q", format=".2~f")
    )
    return bars + labels
