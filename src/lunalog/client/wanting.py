"""Telling people that streams wait for servers: one line a while for all that this client leads.

A cluster that is short of servers, or slow, is so for many streams in one moment.

Source: design.md section 4; R11.
"""

from __future__ import annotations

import logging
from typing import Final

from lunalog.types import Epoch, StreamId

TELL_EVERY_S: Final = 10.0
logger = logging.getLogger("lunalog.client")


class ServersWanted:
    """Who waits for servers that the master cannot name, and who of them was told of."""

    def __init__(self) -> None:
        self._waiting: dict[StreamId, bool] = {}
        """True for one that a line has counted."""
        self._tell_at = float("-inf")

    def wait(self, stream: StreamId, name: str, epoch: Epoch, why: str, now: float) -> None:
        """Note that a leader was named no servers; it asks, and says so, again and again.

        The first one is told at once, and who comes soon after in one line with the others.
        """
        if self._waiting.setdefault(stream, False) or now < self._tell_at:
            return
        self._waiting = dict.fromkeys(self._waiting, True)
        self._tell_at = now + TELL_EVERY_S
        extra = {"stream": name, "epoch": epoch, "why": why, "streams": len(self._waiting)}
        logger.warning("servers_wanted", extra=extra)

    def end(self, stream: StreamId) -> None:
        """Note that a leader has its servers, or leads no more.  Idempotent."""
        self._waiting.pop(stream, None)
