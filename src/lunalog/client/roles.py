"""Observe who leads: states in order, always up to the newest.

Source: design.md sections 4 and 8; trap 27.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType

from lunalog.client.stream import LocalStream
from lunalog.errors import ClosedError
from lunalog.types import RoleState


class RoleStates:
    """`async for state in journal.observe_state(name)`.

    Yields the state now, then each newer one; states that were overtaken before they were asked for
    are left out, the newest never is.  While it is open this client stands for election, unless it
    was opened with `candidate=False`; closing it withdraws, and ends no epoch that is led.

    Raises:
        StreamNotFoundError: There is no such stream, or it was deleted.
        ClosedError: This iterator or its journal was closed.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[LocalStream]],
        close_stream: Callable[[LocalStream], None],
        *,
        is_candidate: bool,
        check: Callable[[], None],
    ) -> None:
        self._open_stream = open_stream
        self._close_stream = close_stream
        self._is_candidate = is_candidate
        self._check_journal = check
        self._local: LocalStream | None = None
        self._last: RoleState | None = None
        self._is_closed = False
        self._changes = asyncio.Event()

    def __aiter__(self) -> RoleStates:
        return self

    async def __aenter__(self) -> RoleStates:
        await self._opened()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __anext__(self) -> RoleState:
        local = await self._opened()
        while True:
            self._check()
            local.check()
            self._changes.clear()
            state = local.role_state(is_candidate=self._is_candidate)
            if self._last is None or _is_news(self._last, state):
                self._last = state
                return state
            await self._changes.wait()

    async def aclose(self) -> None:
        """Stop observing, and withdraw as a candidate.  Idempotent."""
        self._is_closed = True
        self._changes.set()
        local, self._local = self._local, None
        if local is not None:
            self._leave()
            if self._is_candidate:
                local.watch.stand(is_candidate=False)
            self._close_stream(local)

    async def _opened(self) -> LocalStream:
        self._check()
        if self._local is None:
            local = await self._open_stream()
            if self._is_closed or self._local is not None:
                self._close_stream(local)
                self._check()
                return await self._opened()
            self._local = local
            self._leave = local.subscribe(self._changes.set)
            if self._is_candidate:
                local.watch.stand(is_candidate=True)
        return self._local

    def _check(self) -> None:
        if self._is_closed:
            raise ClosedError("this observer is closed: call observe_state again")
        self._check_journal()


def _is_news(last: RoleState, state: RoleState) -> bool:
    return (last.role, last.epoch, last.leader, last.is_confirmed) != (
        state.role,
        state.epoch,
        state.leader,
        state.is_confirmed,
    )
