"""The report's charts, as Vega-Lite specifications that the page fills with a video's data.

Colours are CSS variables of the page, so that charts follow its light and dark theme.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt
import vl_convert

from xapi_etl_processor.report.figures import BUCKETS

DATA = "rows"
"""The name under which the page gives a chart its rows."""

_TEXT, _FAINT = "var(--text)", "var(--line)"
_FIRST, _AGAIN, _STOP = "var(--first)", "var(--again)", "var(--stop)"

# Seconds as 2:05 or 1:02:05.
_CLOCK = (
    "(datum.value >= 3600 ? floor(datum.value / 3600) + ':' : '')"
    " + format(floor(datum.value / 60) % 60, datum.value >= 3600 ? '02' : '1')"
    " + ':' + format(datum.value % 60, '02')"
)


@cache
def specifications() -> dict[str, dict[str, Any]]:
    """Each chart by its name. The page sets the data and, for a video, `seconds` and `ticks`."""
    charts: dict[str, alt.Chart | alt.LayerChart] = {
        "spark": _spark(),
        "retention": _retention(),
        "stops": _stops(),
        "seeks": _seeks(),
        "periods": _periods(),
    }
    return {name: _styled(chart).to_dict() for name, chart in charts.items()}


@cache
def script() -> str:
    """The JavaScript that draws them, Vega, Vega-Lite and Vega-Embed in one: 0.9 MB.

    Raises ValueError if the installed versions of the libraries do not fit each other.
    """
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    return vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # its stub lacks the default


def _spark() -> alt.Chart:
    """Who watched each place, as small as a word."""
    return (
        alt.Chart(alt.NamedData(DATA), width=120, height=24, padding=0)
        .mark_area(color=_FIRST, interpolate="step", aria=False)
        .encode(
            x=alt.X("bucket:Q", axis=None, scale=alt.Scale(domain=[0, BUCKETS])),
            y=alt.Y("viewers:Q", axis=None, scale=alt.Scale(domainMin=0)),
        )
    )


def _retention() -> alt.LayerChart:
    """Two layers, first watch and rewatch, and a line over each marked place."""
    layers = (
        _of_video(220)
        .mark_bar(binSpacing=0, aria=False)
        .transform_fold(["first watch", "rewatch"], as_=["layer", "plays"])
        .transform_calculate(order="datum.layer == 'rewatch'")
        .encode(
            x=_position(),
            x2="to_second",
            y=alt.Y("plays:Q", title="plays", stack="zero"),
            color=_layers("first watch", _FIRST, "rewatch", _AGAIN),
            order="order:Q",
        )
    )
    marks = (
        alt.Chart(alt.NamedData("marks"))
        .mark_rule(strokeWidth=5, aria=False)
        .encode(
            x="from_second:Q",
            x2="to_second:Q",
            y=alt.value(2),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(
                    domain=["many play again", "many stop for good"], range=[_AGAIN, _STOP]
                ),
                # One below the other: side by side they are wider than a phone.
                legend=alt.Legend(title="marked", orient="top", columns=1),
            ),
        )
    )
    return alt.layer(layers, marks).resolve_scale(color="independent")


def _stops() -> alt.Chart:
    return (
        _of_video(120)
        .mark_bar(binSpacing=0, aria=False)
        .transform_fold(["not completed", "completed"], as_=["layer", "viewers"])
        .transform_calculate(order="datum.layer == 'completed'")
        .encode(
            x=_position(),
            x2="to_second",
            y=alt.Y("viewers:Q", title="viewers", stack="zero"),
            color=_layers("not completed", _STOP, "completed", _FIRST),
            order="order:Q",
        )
    )


def _seeks() -> alt.Chart:
    """From where, upwards; to where, downwards."""
    return (
        _of_video(140)
        .mark_bar(binSpacing=0, aria=False)
        .transform_fold(["from here", "to here"], as_=["layer", "seeks"])
        .transform_calculate(signed="datum.layer == 'to here' ? -datum.seeks : datum.seeks")
        .encode(
            x=_position(),
            x2="to_second",
            y=alt.Y("signed:Q", title="seeks", axis=alt.Axis(labelExpr="abs(datum.value)")),
            color=_layers("from here", _STOP, "to here", _AGAIN),
        )
    )


def _periods() -> alt.Chart:
    return (
        alt.Chart(alt.NamedData(DATA), width="container", height=120)
        .mark_bar(color=_FIRST, aria=False)
        .encode(
            x=alt.X(
                "day:T", bin="binned", title=None, axis=alt.Axis(labelOverlap=True, grid=False)
            ),
            x2="until",
            y=alt.Y("sessions:Q", title="sessions"),
        )
    )


def _of_video(height: int) -> alt.Chart:
    return alt.Chart(alt.NamedData(DATA), width="container", height=height).add_params(
        alt.param("seconds", value=1), alt.param("ticks", value=[])
    )


def _layers(one: str, its_colour: str, other: str, others_colour: str) -> alt.Color:
    return alt.Color(
        "layer:N",
        scale=alt.Scale(domain=[one, other], range=[its_colour, others_colour]),
        legend=alt.Legend(title=None, orient="top"),
    )


def _position() -> alt.X:
    return alt.X(
        "from_second:Q",
        bin="binned",
        title="place in the video",
        scale=alt.Scale(domainMin=0, domainMax=alt.ExprRef("seconds"), nice=False),
        axis=alt.Axis(values=alt.ExprRef("ticks"), labelExpr=_CLOCK, grid=False),
    )


def _styled(chart: alt.Chart | alt.LayerChart) -> alt.Chart | alt.LayerChart:
    return (
        chart.configure(background="transparent", font="system-ui, sans-serif")
        .configure_axis(
            labelColor=_TEXT,
            titleColor=_TEXT,
            titleFontWeight="normal",
            domainColor=_FAINT,
            tickColor=_FAINT,
            gridColor=_FAINT,
            tickMinStep=1,
        )
        .configure_legend(labelColor=_TEXT, titleColor=_TEXT, titleFontWeight="normal")
        .configure_view(stroke=None)
    )
