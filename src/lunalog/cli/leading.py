"""Lead a stream for the time of a command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from lunalog.cli.options import Settings
from lunalog.cli.running import LONG_S
from lunalog.errors import DeadlineExceededError, NotLeaderError

if TYPE_CHECKING:
    from lunalog import SingleWriteJournal, StreamWriter


@contextlib.asynccontextmanager
async def leading(
    settings: Settings, journal: SingleWriteJournal, stream: str, *, wait: bool
) -> AsyncIterator[StreamWriter]:
    """Lead `stream` for the time of the body.

    Without `wait`, raises `NotLeaderError` naming who leads, if another one does, and
    `DeadlineExceededError` when leadership does not come within `--timeout`.
    """
    scope = journal.lead(stream)
    if wait:
        async with scope as writer:
            yield writer
        return
    await refuse_if_led(journal, stream)
    async with contextlib.AsyncExitStack() as stack:
        seconds = settings.timeout or LONG_S
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                writer = await stack.enter_async_context(scope)
        except TimeoutError as error:
            if not limit.expired():
                raise
            await refuse_if_led(journal, stream)
            raise DeadlineExceededError(
                f"{stream}: leadership did not come within {seconds:g} s; nothing was appended"
            ) from error
        yield writer


async def refuse_if_led(journal: SingleWriteJournal, stream: str) -> None:
    """Raise `NotLeaderError` if somebody leads."""
    _, leader = await journal.state(stream)
    if leader is not None:
        raise NotLeaderError(
            f"{stream} is led by {leader.name}; nothing was sent; wait for your turn with --wait, "
            f"or take over in peace: lunalog transfer {stream}",
            leader=leader.name,
        )
