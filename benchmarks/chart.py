"""The chart of docs/performance.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import vl_convert

from benchmarks.report import Results
from benchmarks.setting import ROOT

FILE = ROOT / "docs/performance.svg"
_OURS, _OTHERS, _TEXT = "#0b6e4f", "#9aa5b1", "#1f2933"


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
    styled = (
        chart.configure(background="white", padding=16, font="sans-serif")
        .configure_view(stroke=None)
        .configure_title(anchor="start", color=_TEXT, fontSize=14)
        .configure_axis(labelColor=_TEXT, labelFontSize=12, labelLimit=260)
    )
    FILE.write_text(vl_convert.vegalite_to_svg(styled.to_json()) + "\n", encoding="utf-8")


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
