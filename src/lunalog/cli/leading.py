"""Lead a stream for the time of a command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lunalog.cli.options import Settings
from lunalog.cli.running import LONG_S, note
from lunalog.errors import DeadlineExceededError, NotLeaderError

if TYPE_CHECKING:
    from lunalog.client.journal import SingleWriteJournal
    from lunalog.client.writer import StreamWriter


@contextlib.asynccontextmanager
async def leading(
    settings: Settings,
    journal: SingleWriteJournal,
    stream: str,
    *,
    wait: bool,
    hint: str = "wait for your turn with --wait",
) -> AsyncIterator[StreamWriter]:
    """Lead `stream` for the time of the body.

    Without `wait`, raises `NotLeaderError` naming who leads, if another one does, and
    `DeadlineExceededError` when leadership does not come within `--timeout`.
    """
    if not wait:
        await refuse_if_led(journal, stream, hint)
    elif sys.stderr.isatty():
        _, leader = await journal.state(stream)
        if leader is not None:
            note(f"{stream} is led by {leader.name}; this waits for its turn")
    try:
        async with journal.lead(stream, timeout=None if wait else time_of(settings)) as writer:
            settings.has_begun = True
            yield writer
    except DeadlineExceededError:
        if not wait:
            await refuse_if_led(journal, stream, hint)  # another one was faster
        raise


def time_of(settings: Settings) -> float:
    """Return how long leadership may take to come."""
    return settings.timeout or LONG_S


async def refuse_if_led(journal: SingleWriteJournal, stream: str, hint: str) -> None:
    """Raise `NotLeaderError` if somebody leads."""
    _, leader = await journal.state(stream)
    if leader is not None and leader != journal.peer:
        raise NotLeaderError(
            f"{stream} is led by {leader.name}; nothing was done; {hint}",
            leader=leader.name,
        )
