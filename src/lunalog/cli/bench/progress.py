"""What is to be seen while a bench runs: a live line on a terminal, else a line a second on stderr."""

from __future__ import annotations

import os
import sys
from typing import Any, Final

from lunalog.cli.bench.recorder import Part
from lunalog.cli.bench.table import duration
from lunalog.cli.running import note

LIVE_S: Final = 0.1
PLAIN_S: Final = 1.0
BAR: Final = 12


class Progress:
    """Shows the part that runs."""

    def __init__(self) -> None:
        self._live: Any = None
        self._shown_at = 0.0
        self._shown: dict[str, tuple[float, int]] = {}

    def start(self) -> None:
        """Begin; with rich on a terminal it is one line that changes."""
        if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
            return
        try:
            from rich.console import Console
            from rich.live import Live
        except ImportError:
            return
        self._live = Live(
            console=Console(stderr=True), refresh_per_second=1 / LIVE_S, transient=True
        )
        self._live.start()

    def stop(self) -> None:
        """Leave the terminal as it was.  Idempotent."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def show(self, what: str, parts: list[Part], now: float) -> None:
        """Show where it stands; as often as anybody can read."""
        if now - self._shown_at < (LIVE_S if self._live is not None else PLAIN_S):
            return
        self._shown_at = now
        lines = [self._line(what, part, now) for part in parts]
        if self._live is not None:
            from rich.text import Text

            text = "\n".join(lines) or f"{what} ..."
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
            return
        for line in lines:
            note(line)

    def _line(self, what: str, part: Part, now: float) -> str:
        seconds = part.seconds(now)
        before, count = self._shown.get(part.name, (now - seconds, 0))
        rate = (part.done - count) / (now - before) if now > before else 0.0
        self._shown[part.name] = (now, part.done)
        text = f"{part.name} {part.done:,}  {rate:,.0f}/s"
        points = part.timeline.points
        if points and points[-1].max_us:
            last = points[-1]
            text += f"  p50 {duration(last.p50_us)}  p99 {duration(last.p99_us)}"
        if self._live is None:
            return f"{seconds:6.1f} s  {what}  {text}"
        if not part.time_s:
            return f"{seconds:6.1f} s  {text}"
        filled = min(BAR, int(BAR * seconds / part.time_s))
        return f"[{'#' * filled}{'.' * (BAR - filled)}] {seconds:6.1f} s  {text}"
