"""The results as one picture: a row a contestant, a panel a figure; SVG that needs nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from html import escape

from peers.results import LARGE, LONE, SMALL, Line, Round, Spread, lines

LABELS_WIDTH = 330
PANEL_WIDTH = 240
GAP = 26
ROW_HEIGHT = 34
TOP = 84
VALUE_ROOM = 74
"""What the number beside a bar takes of its panel."""
OURS, FSYNCING, OTHER, YARDSTICK = "#2f6fdb", "#5d6673", "#c2a36b", "#a9c4ee"
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:17px;font-weight:600}"
    ".s{fill:#666;font-size:11px}.h{font-weight:600}"
)
Parts = list[str]


@dataclass(frozen=True)
class Panel:
    """One figure of all contestants."""

    title: str
    test: str
    field: str
    show: Callable[[float], str]
    is_logarithmic: bool = False


def thousands(value: float) -> str:
    """A rate, short."""
    return f"{value / 1e3:,.0f} k" if value >= 1e4 else f"{value / 1e3:,.1f} k"


def milliseconds(value: float) -> str:
    """Microseconds as milliseconds."""
    return f"{value / 1e3:.2f}"


PANELS = (
    Panel("100 B, events/s", SMALL, "events_s", thousands),
    Panel("1 KiB, events/s", LARGE, "events_s", thousands),
    Panel("lone 1 KiB, ms: p50, p99", LONE, "p50_us", milliseconds, is_logarithmic=True),
)


def colour(line: Line) -> str:
    """What kind of contestant it is."""
    if line.row.title == "lunalog":
        return OURS
    if not line.is_peer:
        return YARDSTICK
    return FSYNCING if line.row.fsyncs else OTHER


def power_below(value: float) -> float:
    """The power of ten at or below."""
    return 10.0 ** math.floor(math.log10(value))


def scale(values: Iterable[float], *, logarithmic: bool) -> Callable[[float], float]:
    """From a value to its share of the panel, 0 to 1."""
    found = list(values)
    most = max(found, default=1.0)
    if not logarithmic:
        return lambda value: value / most
    least = power_below(min(found, default=1.0))
    span = math.log10(most / least) or 1.0
    return lambda value: math.log10(value / least) / span


def order(line: Line) -> tuple[int, float]:
    """The fastest first, those without a throughput before all."""
    spread = line.figures.get((SMALL, "events_s"))
    return (1, -spread.median) if spread else (0, 0.0)


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """A piece of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def whisker(x: Callable[[float], float], y: float, spread: Spread) -> str:
    """From the least to the most."""
    return (
        f'<path d="M{x(spread.least):.1f} {y:.1f}H{x(spread.most):.1f}" '
        'stroke="#222" stroke-width="1.2"/>'
    )


def bar(left: float, y: float, panel: Panel, line: Line, share: Callable[[float], float]) -> Parts:
    """One figure: a bar to the median, a line from least to most; for latency a dot at p99, too."""
    spread = line.figures.get((panel.test, panel.field))
    if spread is None:
        return [text(left, y + 4, "-", "s")]
    room = PANEL_WIDTH - VALUE_ROOM

    def x(value: float) -> float:
        return left + room * share(value)

    drawn = [
        f'<rect x="{left:.1f}" y="{y - 8:.1f}" width="{max(1.0, x(spread.median) - left):.1f}" '
        f'height="16" rx="2" fill="{colour(line)}"/>',
        whisker(x, y, spread),
    ]
    end, words = max(x(spread.median), x(spread.most)), panel.show(spread.median)
    tail = line.figures.get((panel.test, "p99_us"))
    if tail is not None:
        drawn.append(
            f'<circle cx="{x(tail.median):.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="#222"/>'
        )
        end, words = max(end, x(tail.median) + 4), f"{words}, {panel.show(tail.median)}"
    return [*drawn, text(end + 5, y + 4, words, "s")]


def legend(x: float, y: float) -> Parts:
    """What the colours mean."""
    drawn = []
    for fill, words in (
        (OURS, "lunalog"),
        (YARDSTICK, "yardstick"),
        (FSYNCING, "fsyncs before it acknowledges"),
        (OTHER, "does not"),
    ):
        drawn.append(f'<rect x="{x}" y="{y - 9}" width="11" height="11" rx="2" fill="{fill}"/>')
        drawn.append(text(x + 16, y, words, "s"))
        x += 34 + 6.2 * len(words)
    return drawn


def svg(rounds: Iterable[Round]) -> str:
    """The picture."""
    found = sorted(lines(rounds), key=order)
    width = LABELS_WIDTH + len(PANELS) * (PANEL_WIDTH + GAP)
    height = TOP + ROW_HEIGHT * len(found) + 12
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">',
        f"<style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        text(14, 26, "Replicated logs on the same work: three nodes on one machine", "t"),
        *legend(14, 47),
    ]
    for n, line in enumerate(found):
        y = TOP + ROW_HEIGHT * (n + 0.5)
        if n % 2 == 0:
            drawn.append(
                f'<rect y="{y - ROW_HEIGHT / 2}" width="{width}" height="{ROW_HEIGHT}" fill="#f6f7f9"/>'
            )
        drawn.append(text(14, y - 2, line.row.title, "h"))
        drawn.append(text(14, y + 11, f"{line.row.setting}; {line.row.client}", "s"))
    for n, panel in enumerate(PANELS):
        left = LABELS_WIDTH + n * (PANEL_WIDTH + GAP)
        fields = (panel.field, "p99_us")
        values = [
            value
            for line in found
            for (test, name), spread in line.figures.items()
            if test == panel.test and name in fields
            for value in (spread.least, spread.most)
        ]
        share = scale(values, logarithmic=panel.is_logarithmic)
        drawn.append(text(left, TOP - 8, panel.title, "h"))
        for row, line in enumerate(found):
            drawn += bar(left, TOP + ROW_HEIGHT * (row + 0.5), panel, line, share)
    return "\n".join([*drawn, "</svg>"]) + "\n"
