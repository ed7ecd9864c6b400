"""The runtime of the embedded modes: nodes of one loop, joined by a network in memory.

Master, servers and client take turns on one loop, so whatever stalls one stalls all: a lease is never
judged by who was not stalled.  Source: design.md section 8; R16.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from lunalog.client.ending import JournalRuntime
from lunalog.runtime import Network, Tasks, Worker
from lunalog.wire.memory import MemoryNetwork

T = TypeVar("T")


class EmbeddedRuntime(JournalRuntime):
    """Disk work on threads (a real directory), loops of their own as tasks of the one loop."""

    def __init__(self) -> None:
        super().__init__()
        self.network: Network = MemoryNetwork()
        self._tasks = Tasks(self)

    def start_loop(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run `main()` beside the caller, on the same loop."""
        return TaskWorker(self._tasks.start(main(), name))

    async def stop(self) -> None:
        """End what still runs on it."""
        await self._tasks.cancel()


class MemoryRuntime(EmbeddedRuntime):
    """Nothing leaves the loop: disks are memory and their work is done at once."""

    def mailbox(self) -> LoopMailbox:  # type: ignore[override]
        """A queue between two tasks."""
        return LoopMailbox()

    def start_worker(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Worker:
        """Run the worker as a task."""
        return self.start_loop(name, main)

    async def offload(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work here."""
        return await work


class TaskWorker:
    """A task that passes for a thread."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    async def join(self) -> None:
        """Wait until it has ended; its error has gone to `fail`."""
        await asyncio.wait([self._task])


class LoopMailbox:
    """A mailbox whose worker is a task of the same loop."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, item: Any) -> None:
        """Add an item; dropped after `close`."""
        if not self._is_closed:
            self._items.append(item)
            self._wake()

    async def take_all(self) -> list[Any]:
        """Wait for at least one item, or for the end."""
        while not self._items and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        items, self._items = self._items, []
        return items

    def close(self) -> None:
        """Let the worker finish what is queued."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
