"""What the code of a simulated process sees of its machine: the runtime, workers, mailboxes.

Source: docs/design.md "Seams"; R2, R16, R27.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from lunalog.runtime import Network, drive
from lunalog.testing.loop import SimulatedLoop
from lunalog.testing.network import NodeNetwork, running_loop

if TYPE_CHECKING:
    from lunalog.testing.machine import SimulatedNode

T = TypeVar("T")


class SimulatedMailbox:
    """A queue from any loop of a node to one worker on another."""

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, item: Any) -> None:
        """Add an item; after `close` it is dropped."""
        if not self._is_closed:
            self._items.append(item)
            self._wake()

    async def take_all(self) -> list[Any]:
        """Wait for at least one item; empty means closed and drained."""
        while not self._items and not self._is_closed:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        taken, self._items = self._items, []
        return taken

    def close(self) -> None:
        """Let the worker finish what is queued."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.get_loop().call_soon_threadsafe(_wake_up, waiter)


class SimulatedWorker:
    """A coroutine on a loop of its own, in place of a thread."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self._has_ended = False
        self._waiters: list[asyncio.Future[None]] = []

    async def join(self) -> None:
        """Wait until it has ended."""
        while not self._has_ended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def ended(self, _: object) -> None:
        """Wake who waits."""
        self._has_ended = True
        for waiter in self._waiters:
            waiter.get_loop().call_soon_threadsafe(_wake_up, waiter)


class SimulatedRuntime:
    """The `lunalog.runtime.Runtime` of one process on a simulated machine.

    Each worker and each `start_loop` has its own loop, as a thread would; touching another loop's
    futures or transports without `call_soon_threadsafe` raises.
    """

    def __init__(self, node: SimulatedNode) -> None:
        self.node = node
        scheduler = node.simulation.scheduler
        self.network: Network = NodeNetwork(node.simulation.network, node.name)
        self.random = scheduler.stream(f"runtime {node.name}")
        self._identities = scheduler.stream(f"identities {node.name}")
        self._generation = node.generation
        self._offloaded: set[asyncio.Task[Any]] = set()

    @property
    def is_blocking(self) -> bool:
        """False also while another loop blocks: beside it one would end with it, even paused."""
        simulation = self.node.simulation
        return simulation.is_blocking and not simulation.scheduler.is_beside

    def now(self) -> float:
        """Seconds on the host's boot clock; pauses and suspends count."""
        return self.node.clock.boot()

    def wall_us(self) -> int:
        """Microseconds since 1970 as the host believes."""
        return self.node.clock.wall_us()

    def random_bytes(self, size: int) -> bytes:
        """Bytes from a stream that only this host draws from."""
        return self._identities.randbytes(size)

    def process_id(self) -> int:
        """A number for each start of each host."""
        return 1000 * self.node.number + self._generation

    def mailbox(self) -> SimulatedMailbox:
        """A queue to a worker."""
        return SimulatedMailbox()

    def start_worker(
        self, name: str, main: Callable[[], Coroutine[Any, Any, None]]
    ) -> SimulatedWorker:
        """Run a coroutine on a loop of its own."""
        return self.start_loop(name, main)

    def start_loop(
        self, name: str, main: Callable[[], Coroutine[Any, Any, None]]
    ) -> SimulatedWorker:
        """Run `main()` on a loop of its own."""
        worker = SimulatedWorker(self.node.add_loop(name))
        worker.loop.call_soon_threadsafe(self._start, worker, name, main)
        return worker

    def _start(self, worker: SimulatedWorker, name: str, main: Callable[[], Any]) -> None:
        task = worker.loop.create_task(main(), name=name)
        task.add_done_callback(self._fail_if_raised)
        task.add_done_callback(worker.ended)

    def _fail_if_raised(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def offload(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a disk coroutine; it goes on when the caller is cancelled, as on a thread."""
        task = running_loop().create_task(work)
        self._offloaded.add(task)
        task.add_done_callback(self._offloaded.discard)
        return await asyncio.shield(task)

    def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a disk coroutine within this turn, while the rest of the run goes on.

        A crash of the process on the way ends the turn there.
        """
        loop, disks = running_loop(), self.node.disks.values()
        for disk in disks:
            disk.blocked = loop
        try:
            return drive(work)
        finally:
            for disk in disks:
                disk.blocked = None

    def fail(self, error: BaseException) -> None:
        """Crash the node; a fault of the run unless one of its disks raised an injected error."""
        if self._generation == self.node.generation:
            self.node.fail(error)


def _wake_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
