"""Calls of simulated clients that must end in time (L2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from lunalog.client.journal import SingleWriteJournal
from lunalog.testing.history import Call, History

T = TypeVar("T")


async def called(
    history: History,
    now: Callable[[], float],
    journal: SingleWriteJournal,
    what: str,
    limit_s: float,
    work: Awaitable[T],
) -> T:
    """Await a call, and note when it began and ended, whatever its outcome."""
    call = Call(journal.peer.name, journal.peer.incarnation, what, now(), limit_s)
    history.calls.append(call)
    try:
        return await work
    finally:
        call.done = now()
