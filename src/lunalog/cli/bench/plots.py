"""Plots as inline SVG: axes, lines, dots, a legend; no script, colours by the page's style sheet."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 34, 44
TICKS: Final = 6
Points = Sequence[tuple[float, float]]
Show = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Axis:
    """One direction: from values to places, and where its ticks are."""

    low: float
    high: float
    is_log: bool = False
    show: Show = str
    ticks: tuple[float, ...] = ()
    """None: chosen."""

    @classmethod
    def decades(cls, values: Sequence[float], show: Show) -> Axis:
        """Make a logarithmic axis that holds all values, which are positive."""
        bottom = 10.0 ** math.floor(math.log10(min(values)))
        top = 10.0 ** math.ceil(math.log10(max(values) * 1.0001))
        return cls(bottom, top, True, show, powers(bottom, top))

    @classmethod
    def from_zero(cls, values: Sequence[float], show: Show, *, is_tight: bool = False) -> Axis:
        """Make an axis from 0 to a round number, or to the largest value."""
        most = max([*values, 1e-9])
        ticks = steps(0.0, most)
        if is_tight:
            return cls(0.0, most, False, show, tuple(t for t in ticks if t <= most))
        return cls(0.0, ticks[-1], False, show, ticks)

    def place(self, value: float) -> float:
        """Return where a value stands, from 0 to 1."""
        if self.is_log:
            span = math.log10(self.high) - math.log10(self.low)
            return (math.log10(max(value, self.low)) - math.log10(self.low)) / span
        return (value - self.low) / (self.high - self.low)


def powers(low: float, high: float) -> tuple[float, ...]:
    """Return the powers of ten of a logarithmic axis."""
    first, last = round(math.log10(low)), round(math.log10(high))
    return tuple(10.0**n for n in range(first, last + 1))


def steps(low: float, high: float) -> tuple[float, ...]:
    """Return round numbers from `low` to just past `high`."""
    raw = (high - low) / TICKS
    unit = 10 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    count = math.ceil((high - low) / step - 1e-9)
    return tuple(low + n * step for n in range(count + 1))


@dataclass(slots=True)
class Plot:
    """A picture of one or more series."""

    title: str
    x: Axis
    y: Axis
    x_title: str
    tell: Show
    """A value of `y`, in full."""
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def line(self, name: str, points: Points, colour: int) -> None:
        """Add a line; pointing at one of its places tells the values."""
        style = f"line c{colour}"
        places = [(self._x(x), self._y(y)) for x, y in points]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in places)
        self.parts.append(f'<polyline class="{style}" points="{path}"/>')
        self._dots(name, points, "point")
        self.legend.append((style, name))

    def dots(self, name: str, points: Points, colour: int) -> None:
        """Add single dots."""
        self._dots(name, points, f"dot c{colour}")
        self.legend.append((f"line c{colour}", name))

    def _dots(self, name: str, points: Points, style: str) -> None:
        for x, y in points:
            told = html.escape(f"{name}: {self.tell(y)} at {self.x.show(x)}")
            self.parts.append(
                f'<circle class="{style}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="4">'
                f"<title>{told}</title></circle>"
            )

    def _x(self, value: float) -> float:
        return LEFT + self.x.place(value) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.y.place(value) * (HEIGHT - TOP - BOTTOM)

    def svg(self) -> str:
        """Return the picture."""
        return "\n".join(
            [
                f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
                f'aria-label="{html.escape(self.title)}">',
                *self._grid(),
                *self.parts,
                *self._legend(),
                "</svg>",
            ]
        )

    def _grid(self) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        found = []
        for tick in self.y.ticks:
            y = self._y(tick)
            found.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            found.append(
                f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">'
                f"{html.escape(self.y.show(tick))}</text>"
            )
        for tick in self.x.ticks:
            x = self._x(tick)
            found.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
            found.append(
                f'<text class="tick" x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">'
                f"{html.escape(self.x.show(tick))}</text>"
            )
        found.append(
            f'<text class="tick" x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
            f"{html.escape(self.x_title)}</text>"
        )
        return found

    def _legend(self) -> list[str]:
        found, x = [], LEFT
        for style, name in self.legend:
            found.append(f'<line class="{style}" x1="{x}" x2="{x + 18}" y1="16" y2="16"/>')
            found.append(f'<text class="name" x="{x + 24}" y="20">{html.escape(name)}</text>')
            x += 40 + 7 * len(name)
        return found
