"""Tasks, futures and callbacks of simulated loops: asyncio's own, with an order that replays.

Source: docs/design.md "Seams".
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from lunalog.testing.loop import SimulatedLoop

T = TypeVar("T")


class SimulatedTask(asyncio.Task[T]):
    """A task with its own hash: `TaskGroup` and `asyncio.wait` iterate sets of tasks."""

    __slots__ = ("number",)

    def __init__(
        self,
        work: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: SimulatedLoop,
        number: int,
        **options: Any,
    ) -> None:
        self.number = number  # before the base class puts the task into a set
        super().__init__(work, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number


class SimulatedFuture(asyncio.Future[T]):
    """A future with its own hash, for the same reason."""

    __slots__ = ("number",)
    number: int

    def __hash__(self) -> int:
        return self.number


class SimulatedHandle(asyncio.Handle):
    """A callback that waits for its turn.

    The base class asks the loop about debug mode for each handle; there is none here, and what only
    that mode needs is not set.
    """

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._callback = callback
        self._args = args
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r}>"

    def cancel(self) -> None:
        """Do not run the callback."""
        self._cancelled = True
        self._callback = self._args = None  # type: ignore[assignment]


class SimulatedTimer(asyncio.TimerHandle):
    """A callback that waits for its time."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: SimulatedLoop,
        context: contextvars.Context | None,
        when: float,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop: SimulatedLoop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._when = when
        self._scheduled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._callback!r} at {self._when:.6f}>"

    def cancel(self) -> None:
        """Do not run the callback."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = self._args = None  # type: ignore[assignment]
            if self._scheduled:
                self._loop.timer_was_cancelled()


def settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    """Give a future its result or error, unless somebody cancelled it."""
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
