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

    Who waits does so for ever, or as long as `--timeout` says.  Without `wait`, raises `NotLeaderError`
    naming who leads, if another one does.

    Raises `DeadlineExceededError` when leadership does not come in time; nothing was done.
    """
    limit_s = settings.timeout
    if not wait:
        limit_s = limit_s or LONG_S
        await refuse_if_led(journal, stream, hint)
    elif sys.stderr.isatty():
        _, leader = await journal.state(stream)
        if leader is not None:
            most = f", for {limit_s:g} s at most" if limit_s else ""
            note(f"{stream} is led by {leader.name}; this waits for its turn{most}")
    try:
        async with journal.lead(stream, timeout=limit_s) as writer:
            settings.has_begun = True
            yield writer
    except DeadlineExceededError as error:
        if settings.has_begun:
            raise
        if not wait:
            await refuse_if_led(journal, stream, hint)  # another one was faster
            raise
        late = DeadlineExceededError(f"{error}; without --timeout this waits for ever")
        raise late.without_effect() from None


async def refuse_if_led(journal: SingleWriteJournal, stream: str, hint: str) -> None:
    """Raise `NotLeaderError` if somebody leads."""
    _, leader = await journal.state(stream)
    if leader is not None and leader != journal.peer:
        raise NotLeaderError(
            f"{stream} is led by {leader.name}; nothing was done; {hint}",
            leader=leader.name,
        )
