"""The `lead` scope: a body that runs while this client leads, and is cancelled when it does not.

Source: design.md section 8; R2, R31.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from lunalog.client.stream import Leading, LocalStream, why_ended
from lunalog.client.writer import StreamWriter
from lunalog.errors import (
    DeadlineExceededError,
    LunalogError,
    MetadataLostError,
    NotLeaderError,
    UsageError,
)


class LeadScope:
    """`async with journal.lead(name) as writer`.

    Waits for leadership and for its recovery, then runs the body with a writer bound to that epoch.
    Losing the epoch cancels the body, and the scope raises `NotLeaderError`.  Leaving the scope, also
    by an exception, waits for what is in flight, resigns and leaves nothing open (R31).

    Raises:
        NotLeaderError: The epoch was lost while the body ran.
        StreamNotFoundError: There is no such stream, or it was deleted.
        DeadlineExceededError: Leadership did not come within `timeout` seconds; nothing was done.
        ClosedError: The journal was closed.

    A cancellation from outside stays one: it is never turned into `NotLeaderError`.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[LocalStream]],
        close_stream: Callable[[LocalStream], None],
        *,
        name: str,
        timeout: float | None,
        resign_timeout: float,
        check: Callable[[], None],
    ) -> None:
        self._open_stream = open_stream
        self._close_stream = close_stream
        self._name = name
        self._timeout = timeout
        self._resign_timeout = resign_timeout
        self._check = check
        self._local: LocalStream | None = None
        self._leading: Leading | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._is_in_body = False
        self._is_lost = False
        """True once the epoch ended under the body, which was then cancelled by us, once."""

    async def __aenter__(self) -> StreamWriter:
        if self._local is not None or self._leading is not None:
            raise UsageError("a lead scope is entered once: call journal.lead again")
        local = await self._open_stream()
        if local.is_scoped:
            self._close_stream(local)
            raise UsageError(
                f"this journal leads {self._name!r} in another scope already: share its writer"
            )
        self._local = local
        local.is_scoped = True
        local.watch.stand(is_candidate=True)
        try:
            leading = await self._until_ready(local)
            writer = local.open_writer()
        except BaseException:
            await self._leave(local, None)
            raise
        self._leading = leading
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._is_in_body = True
        leading.ended.add_done_callback(self._epoch_ended)
        return writer

    async def _until_ready(self, local: LocalStream) -> Leading:
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    self._check()
                    local.check()
                    if local.leading is not None and local.is_leading:
                        return local.leading
                    failed = local.last_error
                    if isinstance(failed, MetadataLostError):
                        raise failed
                    await local.changed()
        except TimeoutError:
            raise DeadlineExceededError(
                f"leadership of {self._name!r} did not come within {self._timeout:g} s "
                f"({local.why_not_ready()}); nothing was done"
            ).without_effect() from None

    def _epoch_ended(self, _: object) -> None:
        if self._is_in_body and not self._is_lost and self._task is not None:
            self._is_lost = True
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_in_body = False
        local, leading = self._local, self._leading
        self._local = None
        if local is None or leading is None:
            return
        is_ours = self._is_lost and await self._take_back_our_cancel()
        try:
            await self._leave(local, leading)
        except LunalogError:
            if error is None:
                raise
        if is_ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
            why = why_ended(leading)
            if isinstance(why, NotLeaderError):  # it says no more than we do
                why = None
            asked = "it was asked to hand over" if leading.is_unwanted else None
            raise local.why_not_leader(leading.epoch, why or asked) from error

    async def _take_back_our_cancel(self) -> bool:
        """Undo the one `cancel` that this scope asked for; false when others asked too."""
        task = self._task
        if task is None:
            return False
        is_ours = task.uncancel() <= self._cancelling
        try:
            await asyncio.sleep(0)  # a body that ended at that moment has not been told yet
        except asyncio.CancelledError:
            if task.cancelling() > self._cancelling:
                raise
        return is_ours

    async def _leave(self, local: LocalStream, leading: Leading | None) -> None:
        """Stand no more, then resign if there is something to resign."""
        local.watch.stand(is_candidate=False)
        try:
            leading = leading or local.leading
            if leading is not None and not leading.ended.done():
                async with asyncio.timeout(self._resign_timeout):
                    await leading.resign()
        except TimeoutError:
            raise DeadlineExceededError(
                f"resigning from {self._name!r} took longer than {self._resign_timeout:g} s: events "
                "in flight may or may not be kept; the next leader recovers the stream"
            ) from None
        finally:
            local.is_scoped = False
            self._close_stream(local)
