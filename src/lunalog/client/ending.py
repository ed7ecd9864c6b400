"""The runtime of a journal in somebody's process: what may not be trusted any more is the journal.

A server process exits at once when a rule breaks (R16, R27).  Inside a user's program that is not ours
to decide: the journal ends for good instead, and every later call on it raises.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from lunalog.runtime import Network, SystemRuntime

logger = logging.getLogger("lunalog.client")


class JournalRuntime(SystemRuntime):
    """The real machine, but `fail` ends the journals that use it and not the process."""

    def __init__(self, network: Network | None = None) -> None:
        super().__init__(network)
        self.error: BaseException | None = None
        """What this runtime failed with first; set from any thread."""
        self._loop = asyncio.get_running_loop()
        self._on_fail: dict[int, Callable[[BaseException], None]] = {}
        self._next = 0

    def on_fail(self, listener: Callable[[BaseException], None]) -> Callable[[], None]:
        """Call `listener(error)` on the loop when this runtime fails; returns what ends that."""
        number = self._next
        self._next += 1
        self._on_fail[number] = listener
        return lambda: self._on_fail.pop(number, None) and None

    def fail(self, error: BaseException) -> None:
        """End every journal of this runtime; callable from any thread."""
        if self.error is not None:
            return
        self.error = error
        logger.critical("journal_failed", exc_info=error)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: BaseException) -> None:
        for listener in list(self._on_fail.values()):
            listener(error)
