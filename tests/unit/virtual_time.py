"""An asyncio loop whose time stands still while anything is to be done: no machine is too slow for it.

Where nothing is ready, it is the moment of the next timer at once.  So a test in one loop may wait for
as long as it likes, and what it sees after a wait does not depend on the machine, nor on what else
runs there.  A loop without timers waits for its threads; with both, a thread must not be what a timer
waits for.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

BEGIN_S = 1000.0


class Skipping(selectors.DefaultSelector):
    """Finds what is ready; where it should wait, it lets the time pass instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = BEGIN_S

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready; none, with the time gone on by `timeout`."""
        found = super().select(None if timeout is None else 0)
        if not found and timeout:
            self.now += timeout
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop of such a test."""

    def __init__(self) -> None:
        self._skipping = Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds that passed for this loop."""
        return self._skipping.now

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads, without the limit that newer Pythons set: it would pass at once."""
        await super().shutdown_default_executor()


def now(_: object = None) -> float:
    """Stand in for `SystemRuntime.now`."""
    return asyncio.get_running_loop().time()
