"""A result as one HTML file that needs nothing else: tables, and plots as inline SVG.

It is made of the fields of the JSON result alone, so that a kept one can be shown later.
"""

from __future__ import annotations

import html
import json
import math
from typing import Any, Final

from lunalog.cli.bench.plots import Axis, Plot
from lunalog.cli.bench.table import (
    CORRECTED,
    HEADERS,
    duration,
    part_sentences,
    rows_of,
    tick,
    title,
    verdict_sentence,
)

Row = dict[str, Any]
NINES: Final = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999)

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #66707f; --paper: #fff; --grid: #e3e7ed;
  --c0: #1f6feb; --c1: #d9480f; --c2: #2b8a3e; --c3: #9c36b5; --c4: #a17700;
  --good: #2b8a3e; --bad: #c92a2a }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe5ee; --dim: #98a3b3; --paper: #14181f;
  --grid: #2b323d; --c0: #6ea8fe; --c1: #ff922b; --c2: #69db7c; --c3: #da77f2; --c4: #ffd43b;
  --good: #69db7c; --bad: #ff8787 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 860px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.35rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
.dim, .tick { color: var(--dim); fill: var(--dim) }
.good { color: var(--good); font-weight: 600 } .bad { color: var(--bad); font-weight: 600 }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid var(--grid);
  white-space: nowrap } th:first-child, td:first-child { text-align: left; padding-left: 0;
  white-space: pre }
.facts td { text-align: left; white-space: normal } .facts td:first-child { color: var(--dim) }
svg { width: 100%; height: auto; display: block } .tick { font-size: 11px }
.name { font-size: 12px; fill: var(--ink) } .grid { stroke: var(--grid) }
.line { fill: none; stroke-width: 1.8 }
.point { fill: transparent } .point:hover { fill: var(--ink) } .dot { fill-opacity: .75 }
.c0 { stroke: var(--c0) } .c1 { stroke: var(--c1) } .c2 { stroke: var(--c2) }
.c3 { stroke: var(--c3) } .c4 { stroke: var(--c4) }
.dot.c0 { fill: var(--c0) } .dot.c1 { fill: var(--c1) } .dot.c2 { fill: var(--c2) }
.dot.c3 { fill: var(--c3) } .dot.c4 { fill: var(--c4) }
"""
COLOURS: Final = 5
MANY: Final = 20
"""Fewer single measurements are shown one by one."""


def render(row: Row) -> str:
    """Return the page."""
    heading = html.escape(title(row))
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>lunalog bench {heading}</title>",
            f"<style>{STYLE}</style></head><body>",
            f"<h1>lunalog bench {heading}</h1>",
            f'<p class="dim">{html.escape(row["started_at"])}, lunalog '
            f"{html.escape(row['machine']['lunalog'])}</p>",
            *verdict(row),
            *figures(row),
            *plots(row),
            *facts("What was asked for", row["parameters"]),
            *facts("Where", {**row["cluster"], **row["machine"]}),
            "</body></html>",
            "",
        ]
    )


def verdict(row: Row) -> list[str]:
    """Return how it ended, and whether the data are right."""
    found = []
    if row["ended"] != "finished":
        told = f"ended early ({row['ended']}): {row['why']}"
        found.append(f'<p class="bad">{html.escape(told)}</p>')
    style = {True: "good", False: "bad", None: "dim"}[row["verified"]["holds"]]
    found.append(f'<p class="{style}">{html.escape(verdict_sentence(row["verified"]))}</p>')
    found += [f"<p>{html.escape(text)}</p>" for text in row["notes"]]
    return found


def figures(row: Row) -> list[str]:
    """Return the table of all parts."""
    cells = [line for part in row["parts"] for line in rows_of(part)]
    found = ['<div class="wide"><table><tr>', *(f"<th>{name}</th>" for name in HEADERS), "</tr>"]
    for line in cells:
        found += ["<tr>", *(f"<td>{html.escape(cell)}</td>" for cell in line), "</tr>"]
    found.append("</table></div>")
    said = [text for part in row["parts"] for text in part_sentences(part)]
    if any(part["corrected_us"] for part in row["parts"]):
        said.append(CORRECTED)
    return found + [f'<p class="dim">{html.escape(text)}</p>' for text in said]


def facts(heading: str, values: Row) -> list[str]:
    """Return a table of names and values."""
    found = [f'<h2>{heading}</h2><table class="facts">']
    for name, value in values.items():
        if value is not None:
            told = html.escape(value if isinstance(value, str) else json.dumps(value))
            found.append(f"<tr><td>{html.escape(name.replace('_', ' '))}</td><td>{told}</td></tr>")
    return [*found, "</table>"]


# ----------------------------------------------------------------------------------- plots


def plots(row: Row) -> list[str]:
    """Return every plot that has something to show."""
    parts: list[Row] = row["parts"]
    timed = [part for part in parts if part["per_s"] is not None and len(part["timeline"]) > 1]
    found = []
    if any(is_many(part) for part in parts):
        found.append(("Latency by percentile", percentile_plot(parts)))
    if timed:
        found.append(("Events a second", rate_plot(timed)))
    found += [
        (f"Latency over time: {part['name']}", latency_plot(part))
        for part in timed
        if part["latency_us"]
    ]
    if any(part.get("samples_ms") for part in parts):
        found.append(("Each round", samples_plot(parts)))
    return [text for name, plot in found for text in (f"<h2>{html.escape(name)}</h2>", plot.svg())]


def is_many(part: Row) -> bool:
    """True for a part with enough latencies for percentiles."""
    return part["latency_us"] is not None and part["latency_us"]["count"] >= MANY


def us_axis(values: list[float]) -> Axis:
    """Return a logarithmic axis of microseconds."""
    return Axis.decades([max(v, 1.0) for v in values], tick)


def nine(percent: float) -> float:
    """Return how many nines a percentile has: where it stands on its axis."""
    return -math.log10(1 - min(percent, 99.99999) / 100)


def percent_of(nines: float) -> str:
    """Return the percentile at a place of that axis."""
    return f"{100 - 100 * 10**-nines:.6g}%"


def percentile_plot(parts: list[Row]) -> Plot:
    """Percentiles with each nine as wide as the one before, microseconds in decades."""
    known = [part for part in parts if is_many(part)]
    most = max(nine(part["percentiles_us"][-1][0]) for part in known) or 1.0
    ticks = tuple(nine(percent) for percent in NINES if nine(percent) <= most + 1e-9)
    plot = Plot(
        "Latency by percentile",
        Axis(0.0, most, show=percent_of, ticks=ticks),
        us_axis([us for part in known for _, us in part["percentiles_us"]]),
        "percentile",
        duration,
    )
    for n, part in enumerate(known):
        points = [(nine(percent), max(us, 1)) for percent, us in part["percentiles_us"]]
        plot.line(part["name"], points, n % COLOURS)
    return plot


def rate_plot(parts: list[Row]) -> Plot:
    """Events a second in each interval."""
    series = [
        (part["name"], [(p["at_s"], p["events"] / p["seconds"]) for p in whole(part["timeline"])])
        for part in parts
    ]
    values = [y for _, points in series for _, y in points]
    plot = Plot("Events a second", time_axis(parts), Axis.from_zero(values, rate), "seconds", rate)
    for n, (name, points) in enumerate(series):
        plot.line(name, points, n % COLOURS)
    return plot


def whole(timeline: list[Row]) -> list[Row]:
    """Leave out a last interval that is too short for a rate."""
    return [p for p in timeline if p["seconds"] >= timeline[0]["seconds"] / 2]


def latency_plot(part: Row) -> Plot:
    """Median, p99 and the largest of each interval."""
    points = [p for p in part["timeline"] if p["max_us"]]
    values = [float(p[name]) for p in points for name in ("p50_us", "p99_us", "max_us")]
    plot = Plot(part["name"], time_axis([part]), us_axis(values), "seconds", duration)
    for n, (name, told) in enumerate((("p50_us", "p50"), ("p99_us", "p99"), ("max_us", "max"))):
        plot.line(told, [(p["at_s"], max(p[name], 1)) for p in points], n)
    return plot


def samples_plot(parts: list[Row]) -> Plot:
    """A dot for each single measurement."""
    known = [part for part in parts if part.get("samples_ms")]
    most = max(len(part["samples_ms"]) for part in known)
    rounds = tuple(float(n) for n in range(1, most + 1))
    values = [ms * 1000 for part in known for ms in part["samples_ms"]]
    plot = Plot(
        "Each round",
        Axis(0.5, most + 0.5, show=lambda x: f"{x:g}", ticks=rounds),
        us_axis(values),
        "round",
        duration,
    )
    for n, part in enumerate(known):
        points = [(float(i), ms * 1000) for i, ms in enumerate(part["samples_ms"], 1)]
        plot.dots(part["name"], points, n % COLOURS)
    return plot


def time_axis(parts: list[Row]) -> Axis:
    """Return an axis of seconds from 0."""
    ends = [p["at_s"] for part in parts for p in part["timeline"]]
    return Axis.from_zero(ends, lambda x: f"{x:g}", is_tight=True)


def rate(value: float) -> str:
    """Return events a second."""
    return f"{value:,.0f}"
