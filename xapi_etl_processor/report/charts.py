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
    """Each chart by its name. The page sets the data and the parameters."""
    charts = (_spark, _retention, _stops, _seeks, _periods)
    return {chart.__name__.strip("_"): _styled(chart()).to_dict() for chart in charts}


@cache
def script() -> str:
    """The JavaScript that draws them, 0.9 MB. Raises ValueError if the libraries do not fit."""
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
    layers = _stacked(220, "plays", ("first watch", _FIRST), ("rewatch", _AGAIN))
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
    return _stacked(120, "viewers", ("not finished", _STOP), ("finished", _FIRST))


def _seeks() -> alt.Chart:
    """From where, upwards; to where, downwards."""
    axis = alt.Axis(labelExpr="abs(datum.value)")
    return (
        _in_two_layers(140, "seeks", ("from here", _STOP), ("to here", _AGAIN))
        .transform_calculate(signed="datum.layer == 'to here' ? -datum.seeks : datum.seeks")
        .encode(y=alt.Y("signed:Q", title="seeks", axis=axis))
    )


def _periods() -> alt.Chart:
    """A bar for each day or week, over the days of the section."""
    return (
        alt.Chart(alt.NamedData(DATA), width="container", height=120)
        .add_params(*(alt.param(name, value=0) for name in ("first", "last")))
        .add_params(alt.param("ticks", value=[]), alt.param("form", value="%b %Y"))
        .mark_bar(color=_FIRST, aria=False)
        .encode(
            x=alt.X(
                "day:Q",
                bin="binned",
                title=None,
                scale=alt.Scale(
                    domainMin=alt.ExprRef("first"), domainMax=alt.ExprRef("last"), nice=False
                ),
                axis=alt.Axis(
                    values=alt.ExprRef("ticks"),
                    labelExpr="utcFormat(datum.value, form)",
                    labelOverlap=True,
                    grid=False,
                ),
            ),
            x2="until",
            y=alt.Y("sessions:Q", title="sessions"),
        )
    )


def _stacked(height: int, counted: str, low: tuple[str, str], high: tuple[str, str]) -> alt.Chart:
    return (
        _in_two_layers(height, counted, low, high)
        .transform_calculate(order=f"datum.layer == '{high[0]}'")
        .encode(y=alt.Y(f"{counted}:Q", title=counted, stack="zero"), order="order:Q")
    )


def _in_two_layers(height: int, counted: str, *layers: tuple[str, str]) -> alt.Chart:
    """Bars over a video's length, of two layers, each a name and a colour."""
    names, colours = ([layer[at] for layer in layers] for at in (0, 1))
    return (
        alt.Chart(alt.NamedData(DATA), width="container", height=height)
        .add_params(alt.param("seconds", value=1), alt.param("ticks", value=[]))
        .mark_bar(binSpacing=0, aria=False)
        .transform_fold(names, as_=["layer", counted])
        .encode(
            x=alt.X(
                "from_second:Q",
                bin="binned",
                title="place in the video",
                scale=alt.Scale(domainMin=0, domainMax=alt.ExprRef("seconds"), nice=False),
                axis=alt.Axis(values=alt.ExprRef("ticks"), labelExpr=_CLOCK, grid=False),
            ),
            x2="to_second",
            color=alt.Color(
                "layer:N",
                scale=alt.Scale(domain=names, range=colours),
                legend=alt.Legend(title=None, orient="top"),
            ),
        )
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
