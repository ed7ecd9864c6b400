"""What the demo shows: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo_engines import Engines

PLAIN_EVERY_S = 1.0
LIVE_EVERY_S = 0.1
BAR = 40


class Screen:
    """Lines with the time in front, and progress."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live: Any = None
        self._task: asyncio.Task[None] | None = None
        self._console: Any = None
        if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
            try:
                from rich.console import Console

                self._console = Console(highlight=False)
            except ImportError:
                pass

    def say(self, text: str) -> None:
        """Print one line."""
        self._print(f"{time.monotonic() - self._began:6.2f} s  {text}")

    def _print(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def result(self, rows: list[str]) -> None:
        """Print the end."""
        self._print("")
        for row in rows:
            self._print(row)

    # ------------------------------------------------------------------ progress

    def start(self, lines: int, engines: Engines) -> None:
        """Show progress until `stop`."""
        if self._console is not None:
            from rich.live import Live

            self._live = Live(console=self._console, refresh_per_second=10, transient=True)
            self._live.start()
        self._task = asyncio.create_task(self._show(lines, engines))

    def stop(self) -> None:
        """Stop showing progress.  Idempotent."""
        task, self._task = self._task, None
        live, self._live = self._live, None
        if task is not None:
            task.cancel()
        if live is not None:
            live.stop()

    async def _show(self, lines: int, engines: Engines) -> None:
        last = -1
        while True:
            if self._live is not None:
                self._live.update(self._table(lines, engines))
                await asyncio.sleep(LIVE_EVERY_S)
                continue
            await asyncio.sleep(PLAIN_EVERY_S)
            if engines.acknowledged != last:
                last = engines.acknowledged
                applied = ", ".join(f"{e.name} {e.applied:,}" for e in engines.running())
                self.say(f"{last / lines:4.0%}  acknowledged {last:,}; applied: {applied}")

    def _table(self, lines: int, engines: Engines) -> Any:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_row("acknowledged", bar(engines.acknowledged, lines), f"{engines.acknowledged:,}")
        for engine in engines.running():
            table.add_row(
                f"{engine.name} ({engine.role})", bar(engine.applied, lines), f"{engine.applied:,}"
            )
        return table


def bar(count: int, whole: int) -> str:
    """Return a bar of text."""
    filled = BAR * count // max(whole, 1)
    return "#" * filled + "." * (BAR - filled)
